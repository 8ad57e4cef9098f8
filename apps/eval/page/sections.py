"""The sections of report.html: each a function from figures to HTML."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from apps.eval.page import charts, tables
from apps.eval.page.judge_check import belief
from apps.eval.page.parts import card, dot, of

_ABOUT = {
    "vicuna-blog": "Both answers in one order, two scores from 1 to 10 (the Vicuna blog's method).",
    "pairwise-swap": "Both answers in both orders; two orders that disagree are a tie.",
    "single": "Each answer alone, from 1 to 10.",
    "mt-bench": "Each answer alone, turn by turn, from 1 to 10, with references where known.",
    "verdict": "Both answers in both orders, five labels from much better to much worse.",
}


def cards(figures: Mapping[str, Any]) -> str:
    """The few numbers that one wants first."""
    made = []
    for name, result in figures["protocols"].items():
        if result.get("preference"):
            found = result["preference"]
            told = f"preferred over {found['over']}: {found['win']} wins, {found['tie']} ties, "
            told += f"{found['loss']} losses ({of(found)})"
            made.append(card(found["preferred"], told))
        elif result.get("ratings", {}).get("models"):
            best = result["ratings"]["models"][0]
            made.append(
                card(
                    best["model"],
                    f"leads by {name}: rating {best['rating']:.0f} "
                    f"[{best['low']:.0f}, {best['high']:.0f}]",
                )
            )
        elif result.get("scores"):
            model, row = max(result["scores"].items(), key=lambda item: item[1]["mean"] or 0)
            made.append(card(model, f"leads by {name}: mean {row['mean']:.2f} ({of(row)})"))
    for model, row in figures["models"].items():
        found = row["accuracy"]
        if found and len(figures["models"]) <= 4:
            told = f"{model}: {found['correct']} of {found['total']} held-out answers correct"
            made.append(card(f"{100 * found['rate']:.0f} %", told))
    counts = [result["judgments"] for result in figures["protocols"].values()]
    ok, total = sum(c["ok"] for c in counts), sum(c["total"] for c in counts)
    made.append(card(f"{ok:,} of {total:,}", "judgments made and read"))
    if figures["costs"]:
        made.append(card(f"${figures['usd']:.2f}", "paid to judges, all runs together"))
    return f'<div class="cards">{"".join(made)}</div>'


def accuracy(figures: Mapping[str, Any], models: Sequence[str]) -> str:
    """Held-out questions with reference answers."""
    found = {name: row["accuracy"] for name, row in figures["models"].items() if row["accuracy"]}
    if not found:
        return ""
    chart = charts.bars(
        {name: 100 * row["rate"] for name, row in found.items()},
        models,
        "Accuracy on questions with reference answers, percent",
        100.0,
        " %",
        {name: (100 * row["low"], 100 * row["high"]) for name, row in found.items()},
    )
    head = "".join(f"<th class=n>{dot(models, name)}{escape(name)}</th>" for name in found)
    rows = [_accuracy_row("all", list(found.values()))]
    rows += [
        _accuracy_row(name, [row["per_category"].get(name) for row in found.values()])
        for name in dict.fromkeys(c for row in found.values() for c in row["per_category"])
    ]
    return (
        '<h2 id="accuracy">Held-out accuracy</h2><p class="lead">Answers that agree with the '
        "reference as the question demands. No judge is involved; lines are 95 % Wilson "
        f'intervals.</p><div class="panel">{chart}</div><div class="panel"><table><tr>'
        f"<th>category</th>{head}</tr>{''.join(rows)}</table></div>"
    )


def _accuracy_row(name: str, counts: Sequence[Mapping[str, Any] | None]) -> str:
    cells = (f"{c['correct']} of {c['total']}" if c else "&ndash;" for c in counts)
    return f"<tr><td>{escape(name)}</td>{''.join(f'<td class=n>{c}</td>' for c in cells)}</tr>"


def protocol(name: str, figures: Mapping[str, Any], models: Sequence[str]) -> str:
    """Everything about one judging protocol."""
    result = figures["protocols"][name]
    judges = ", ".join(result["judge_labels"])
    parts = [
        f'<h2 id="{name}">{escape(name)}</h2><p class="lead">{escape(_ABOUT[name])} Judged by '
        f"{escape(judges)}. {_coverage(result['judgments'])} {_left_out(result['questions'])}</p>"
    ]
    drawn = [_quality(result, models), _ratings(result, models), tables.matrix(result, models)]
    parts.append(f'<div class="two">{"".join(drawn)}</div>')
    parts += [tables.pairs(result), tables.turns(result, models)]
    parts.append(tables.categories(result, models))
    parts += [tables.length_control(result), belief(result, figures)]
    return "".join(parts)


def _coverage(counts: Mapping[str, int]) -> str:
    lost = {name: n for name, n in counts.items() if name not in ("ok", "total") and n}
    if not lost:
        return f"All {counts['total']:,} judgments were made and read."
    told = ", ".join(f"{n} {name}" for name, n in lost.items())
    return f"<b>{counts['ok']:,} of {counts['total']:,}</b> judgments count; {told}."


def _left_out(counts: Mapping[str, int]) -> str:
    if counts["judged"] == counts["total"]:
        return ""
    return (
        f"<b>{counts['judged']} of {counts['total']} questions</b> are judged; the others have no "
        "reference answer for this judge to compare with."
    )


def _quality(result: Mapping[str, Any], models: Sequence[str]) -> str:
    if "scores" not in result:
        return ""
    rows = {k: v for k, v in result["scores"].items() if v["mean"] is not None}
    ordered = dict(sorted(rows.items(), key=lambda item: -item[1]["mean"]))
    percent = result["relative_quality"]["percent"]
    chart = charts.bars(
        {name: row["mean"] for name, row in ordered.items()},
        models,
        "Mean score of 10",
        10.0,
        "",
        {name: (row["low"], row["high"]) for name, row in ordered.items()},
        {name: f"{percent[name]:.1f} %" for name in ordered},
    )
    anchor = escape(result["relative_quality"]["baseline"])
    return (
        f'<div class="panel"><h3>Mean score and quality relative to {anchor}</h3>{chart}'
        f'<p class="note">Lines are 95 % intervals over questions. {_basis(result)}</p></div>'
    )


def _basis(result: Mapping[str, Any]) -> str:
    """How the percentages came about."""
    if "pairs" not in result:
        return "Percentages compare the means."
    through = result["relative_quality"]["through"]
    if not through:
        return "Percentages compare both totals of a model's pair with the baseline."
    hubs = ", ".join(escape(hub) for hub in sorted(set(through.values())))
    return (
        f"Percentages compare both totals of a pair; models that never met the baseline are "
        f"chained through {hubs}, as in the Vicuna blog's Figure 1."
    )


def _ratings(result: Mapping[str, Any], models: Sequence[str]) -> str:
    rows = result.get("ratings", {}).get("models")
    if not rows:
        return ""
    chart = charts.whiskers(rows, models, "Bradley-Terry ratings on the Elo scale")
    note = "Bradley-Terry, Elo scale, 95 % intervals from resampled questions."
    if not result["ratings"]["is_connected"]:
        note += " Some model never wins or never loses: one virtual tie a pair keeps this finite."
    online = ", ".join(f"{escape(row['model'])} {row['elo']:.0f}" for row in rows)
    note += f" Online Elo, battle by battle: {online}."
    return f'<div class="panel"><h3>Ratings</h3>{chart}<p class="note">{note}</p></div>'


def contamination(figures: Mapping[str, Any]) -> str:
    found = figures.get("contamination")
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{escape(item['question_id'])}</td><td class=n>{100 * item['overlap']:.0f} %</td>"
        f"<td class=n>{100 * item['similarity']:.0f} %</td>"
        f"<td>{escape(item['example'][:160])}</td></tr>"
        for item in found["contaminated"]
    )
    table = (
        "<table><tr><th>question</th><th class=n>n-grams seen</th><th class=n>similarity</th>"
        f"<th>in the training data</th></tr>{rows}</table>"
        if rows
        else ""
    )
    told = f"{len(found['contaminated'])} of {found['questions']} questions occur in "
    told += f"{found['texts']:,} training texts."
    return (
        f'<h2 id="contamination">Contamination</h2><div class="panel"><p>{escape(told)}</p>{table}'
        "</div>"
    )


def cost(figures: Mapping[str, Any]) -> str:
    """What every judge's calls cost, and how fast they came."""
    if not figures["costs"]:
        return ""
    heads = ("calls", "busiest minute", "median", "95th percentile", "prompt tokens")
    heads = (*heads, "completion tokens", "US$", "US$ per 1,000 calls")
    head = "".join(f"<th class=n>{name}</th>" for name in heads)
    rows = "".join(
        f"<tr><td class=name>{escape(row['judge'])}</td><td class=n>{row['calls']:,}</td>"
        f"<td class=n>{row['busiest_minute_calls']:,}</td><td class=n>{_s(row['latency_p50_s'])}"
        f"</td><td class=n>{_s(row['latency_p95_s'])}</td><td class=n>{row['prompt_tokens']:,}</td>"
        f"<td class=n>{row['completion_tokens']:,}</td><td class=n>{row['usd']:.2f}</td>"
        f"<td class=n>{row['usd_per_1000_calls']:.2f}</td></tr>"
        for row in figures["costs"]
    )
    return (
        '<h2 id="cost">Cost and rate</h2><p class="lead">Every response that came, of all runs '
        "together: repeats, self-checks, canaries and unreadable ones too.</p>"
        f'<div class="panel"><table><tr><th>judge</th>{head}</tr>{rows}</table></div>'
    )


def _s(seconds: float | None) -> str:
    return "&ndash;" if seconds is None else f"{seconds:.1f} s"


def manifest(figures: Mapping[str, Any]) -> str:
    text = json.dumps(figures["manifest"], indent=2, ensure_ascii=False)
    return (
        '<h2 id="manifest">Manifest</h2><p class="lead">What made these figures: digests of '
        "questions and prompts, the judge's snapshots, prices, seeds and versions.</p>"
        '<details class="manifest panel"><summary>Show</summary>'
        f'<pre class="block">{escape(text)}</pre></details>'
    )
