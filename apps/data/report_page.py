"""The report as one HTML file: no scripts from elsewhere, readable in light and dark."""

import html
from typing import Any

from markdown_it import MarkdownIt

from apps.data.ledger import UNITS
from apps.data.read import records
from apps.data.units import Json

_CSS = """
:root{--bg:#fafaf7;--card:#fff;--ink:#1d1f21;--soft:#6b7075;--line:#e3e3dd;--kept:#2f7d5b;
--gone:#c4572e;--odd:#b58a1b;--bar:#4a6fa5;--code:#f3f3ee}
@media(prefers-color-scheme:dark){:root{--bg:#15171a;--card:#1d2024;--ink:#e6e6e3;--soft:#9aa0a6;
--line:#30343a;--kept:#5fbf95;--gone:#e98a63;--odd:#d9b450;--bar:#86a8d9;--code:#25292e}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 20px 80px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 12px}
p,.note{color:var(--soft);margin:4px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.card b{display:block;font-size:24px;font-variant-numeric:tabular-nums}
.card span{color:var(--soft);font-size:13px}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:12px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:5px 8px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap}
.bars td{border:0;padding:3px 8px;white-space:nowrap}.bars td:nth-child(2){width:100%}
.track{background:var(--code);border-radius:4px;height:16px;display:flex;overflow:hidden}
.track i{display:block;height:16px}
details{background:var(--card);border:1px solid var(--line);border-radius:10px;margin:8px 0}
summary{cursor:pointer;padding:10px 14px}summary em{color:var(--soft);font-style:normal}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1px;background:var(--line)}
.pair>div{background:var(--card);padding:12px 16px;min-width:0;overflow-wrap:anywhere}
.pair h4{margin:0 0 6px;font-size:12px;color:var(--soft);text-transform:uppercase}
.turn{margin:0 0 12px}.turn p{color:inherit}.role{font-size:12px;font-weight:600;color:var(--bar)}
.turn.assistant .role{color:var(--kept)}
pre{background:var(--code);padding:10px;border-radius:6px;overflow:auto;margin:6px 0}
.raw{white-space:pre-wrap;font:12px/1.45 ui-monospace,monospace;background:none;padding:0}
code{font:12.5px/1.45 ui-monospace,monospace;background:var(--code);border-radius:3px}
.scroll{max-height:520px;overflow:auto}
@media(max-width:760px){.pair{grid-template-columns:1fr}}
"""
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_MARKDOWN.disable("image")  # its address would be asked for by whoever opens the page
_MAX_TURN_CHARS = 6000


def render(report: Json) -> str:
    totals = report["totals"]
    sources = ", ".join(uri.rsplit("/", 1)[-1] for uri in report["inputs"])
    parts = [
        f"<h1>Cleaning report</h1><p>{_text(sources)} &middot; {_text(report['created'])} "
        f"&middot; commit {_text(report['git_commit'] or 'unknown')}</p>",
        _cards(totals, report),
        _section("Rules", "Records left after each rule that dropped some.", _funnel(report)),
        f'<div class="two">{_accounts(report["ledger"])}{_repairs(report["ledger"])}</div>',
        '<div class="two">'
        + _section("Rounds per conversation", "", _bars(report["rounds"]))
        + _section("Characters per conversation", "", _bars(report["chars"]))
        + "</div>",
        _section("Languages", "Of kept conversations, code taken out first.", _languages(report)),
        _pack(report.get("pack")),
        _section(
            "Samples",
            "As the dump has them on the left, as they came out on the right. Inappropriate content"
            " is found by a word list, not by a model.",
            _samples(report["samples"]),
        ),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Cleaning report: {totals['kept']:,} of {totals['records']:,} kept</title>"
        f"<style>{_CSS}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, note: str, body: str) -> str:
    shown = f'<p class="note">{_text(note)}</p>' if note else ""
    return f"<section><h2>{_text(title)}</h2>{shown}{body}</section>" if body else ""


def _cards(totals: Json, report: Json) -> str:
    share = 100 * totals["kept"] / max(1, totals["records"])
    values = [
        (f"{totals['records']:,}", "conversations in"),
        (f"{totals['kept']:,}", f"kept ({share:.1f} %)"),
        (f"{totals['dropped']:,}", "dropped by a rule"),
        (f"{totals['quarantined']:,}", "could not be read"),
        (f"{report['ledger']['bytes']['input'] / 1e6:,.1f} MB", "of raw input, all accounted for"),
    ]
    cards = "".join(
        f'<div class="card"><b>{big}</b><span>{small}</span></div>' for big, small in values
    )
    return f'<div class="cards">{cards}</div>'


def _funnel(report: Json) -> str:
    total = max(1, report["totals"]["records"])
    rows = []
    for step in report["funnel"]:
        left, gone = 100 * step["left"] / total, 100 * step["gone"] / total
        color = "var(--odd)" if step["step"] == "quarantine" else "var(--gone)"
        minus = f"-{step['gone']:,}" if step["gone"] else ""
        rows.append(
            f'<tr><td>{_text(step["step"])}</td><td><div class="track"><i style="width:{left:.3f}%;'
            f'background:var(--kept)"></i><i style="width:{max(gone, 0.15 if gone else 0):.3f}%;'
            f'background:{color}"></i></div></td><td class="n">{step["left"]:,}</td>'
            f'<td class="n">{minus}</td></tr>'
        )
    return f'<table class="bars">{"".join(rows)}</table>'


def _accounts(ledger: Json) -> str:
    head = "".join(f'<th class="n">{unit}</th>' for unit in UNITS)
    rows = [("in", [ledger[unit]["input"] for unit in UNITS])]
    rows.append(("kept", [ledger[unit]["kept"] for unit in UNITS]))
    for part in ("trimmed", "dropped", "quarantined"):
        names = sorted(
            {name for unit in ("records", "messages", "bytes") for name in ledger[unit][part]}
        )
        for name in names:
            values = [ledger[unit][part].get(name, 0) for unit in ("records", "messages", "bytes")]
            rows.append((f"{part}: {name}", values))
    rows.append(("framing", [0, 0, ledger["bytes"]["framing"]]))
    body = "".join(
        f"<tr><td>{_text(name)}</td>"
        + "".join(f'<td class="n">{_amount(value)}</td>' for value in values)
        + "</tr>"
        for name, values in rows
    )
    return _section("Ledger", "", f"<table><tr><th></th>{head}</tr>{body}</table>")


def _amount(value: int) -> str:
    return f"{value:,}" if value else ""


def _repairs(ledger: Json) -> str:
    items = [(name.replace("_", ", "), count) for name, count in ledger["forms"].items()]
    items += [(f"changed by {name}", count) for name, count in ledger["repairs"].items()]
    rows = "".join(
        f'<tr><td>{_text(name)}</td><td class="n">{count:,}</td></tr>' for name, count in items
    )
    return _section("Messages by form", "", f"<table>{rows}</table>")


def _bars(items: list[list[Any]]) -> str:
    while items and not items[-1][1]:
        items = items[:-1]
    most = max((count for _, count in items), default=1)
    rows = []
    for label, count in items:
        bar = f'<i style="width:{100 * count / most:.2f}%;background:var(--bar)"></i>'
        rows.append(
            f'<tr><td>{_text(label)}</td><td><div class="track">{bar}</div></td>'
            f'<td class="n">{count:,}</td></tr>'
        )
    return f'<table class="bars">{"".join(rows)}</table>' if items else ""


def _languages(report: Json) -> str:
    return _bars(report["languages"])


def _pack(pack: Json | None) -> str:
    """Rows, tokens and fill of each split."""
    if pack is None:
        return ""
    names = {"num_rows": "rows", "num_segments": "segments", "num_tokens": "tokens"}
    names["num_supervised_tokens"] = "supervised tokens"
    head = "".join(f"<th>{title}</th>" for title in ("split", *names.values(), "token fill"))
    rows = "".join(
        f"<tr><td>{_text(split)}</td>"
        + "".join(f"<td>{found[name]:,}</td>" for name in names)
        + f"<td>{found['fill']:.1%}</td></tr>"
        for split, found in pack["splits"].items()
    )
    note = f"{pack['mode']} mode, {pack['max_length']:,} tokens a row, {pack['template']['name']}"
    return _section("Packed rows", note, f"<table><tr>{head}</tr>{rows}</table>")


def _samples(samples: dict[str, list[Json]]) -> str:
    parts: list[str] = []
    for rule in sorted(samples, key=lambda name: (name != "kept", name)):
        for sample in samples[rule]:
            opened = "" if parts else " open"
            title = f"<b>{_text(rule)}</b> {_text(sample['id'])}"
            detail = f" <em>{_text(sample['detail'])}</em>" if sample["detail"] else ""
            raw, clean = _raw(sample["raw"]), _clean(sample["messages"])
            parts.append(
                f"<details{opened}><summary>{title}{detail}</summary>"
                f'<div class="pair"><div><h4>Raw</h4><div class="scroll">{raw}</div></div>'
                f'<div><h4>Clean</h4><div class="scroll">{clean}</div></div></div></details>'
            )
    return "".join(parts)


def _raw(text: str) -> str:
    """Turn by turn when the record is a whole conversation, else its beginning as it is."""
    turns = records.raw_turns(text)
    if not turns:
        return f'<pre class="raw">{_text(text[:_MAX_TURN_CHARS])}</pre>'
    return "".join(
        f'<div class="turn"><div class="role">{_text(role)}</div>'
        f'<pre class="raw">{_text(value[:_MAX_TURN_CHARS])}</pre></div>'
        for role, value in turns
    )


def _clean(messages: list[Json]) -> str:
    return "".join(
        f'<div class="turn {_text(turn["role"])}"><div class="role">{_text(turn["role"])}</div>'
        f"{_MARKDOWN.render(turn['content'][:_MAX_TURN_CHARS])}</div>"
        for turn in messages
    )
