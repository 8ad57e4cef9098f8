"""The report as one HTML file: no scripts from elsewhere, readable in light and dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

from apps.common.page.render import environment
from apps.data.ledger import UNITS
from apps.data.read import records
from apps.data.report_advice import advice
from apps.data.report_content import Ledger, Report, SampleLine

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_MARKDOWN.disable("image")  # its address would be asked for by whoever opens the page
_MAX_TURN_CHARS = 6000
_MAX_SAMPLE_CHARS = 300_000
"""Of all samples on the report; a browser lays them out in a tenth of a second."""
_PACK_COLUMNS = {
    "num_rows": "rows",
    "num_segments": "segments",
    "num_tokens": "tokens",
    "num_supervised_tokens": "supervised tokens",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Records that are left after a rule, and that it took; shares of all, percent."""

    name: str
    left: int
    gone: int
    left_percent: float
    gone_percent: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    role: str
    body: Markup | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A record as it came and as it went."""

    rule: str
    id: str
    detail: str
    raw: Sequence[Turn]
    """empty where the record is no conversation"""
    raw_text: str
    clean: Sequence[Turn]


def render(report: Report, samples: Sequence[Sample], more: int) -> str:
    """The page with some of the samples; `more` are on a page of their own."""
    template = _ENVIRONMENT.get_template("report.html")
    return template.render(
        report=report,
        totals=report["totals"],
        advice=advice(report),
        personal=report.get("personal_data"),
        sources=", ".join(uri.rsplit("/", 1)[-1] for uri in report["inputs"]),
        steps=_steps(report),
        units=UNITS,
        accounts=_accounts(report["ledger"]),
        forms=_forms(report["ledger"]),
        pack=report.get("pack"),
        pack_columns=_PACK_COLUMNS,
        samples=samples,
        more=more,
    )


def _steps(report: Report) -> list[Step]:
    total = max(1, report["totals"]["records"])
    return [
        Step(
            name=step["step"],
            left=step["left"],
            gone=step["gone"],
            left_percent=100 * step["left"] / total,
            # Below this nothing could be seen.
            gone_percent=max(100 * step["gone"] / total, 0.15 if step["gone"] else 0),
        )
        for step in report["funnel"]
    ]


def _accounts(ledger: Ledger) -> dict[str, list[int]]:
    """{where it went: [records, messages, bytes]}"""
    rows = {"in": [ledger[unit]["input"] for unit in UNITS]}
    rows["kept"] = [ledger[unit]["kept"] for unit in UNITS]
    for part in ("trimmed", "dropped", "quarantined"):
        for name in sorted({name for unit in UNITS for name in ledger[unit][part]}):
            rows[f"{part}: {name}"] = [ledger[unit][part].get(name, 0) for unit in UNITS]
    if joined := ledger["records"].get("joined", 0):
        rows["joined into others"] = [joined, 0, 0]
    rows["framing"] = [0, 0, ledger["bytes"].get("framing", 0)]
    return rows


def _forms(ledger: Ledger) -> dict[str, int]:
    forms = {name.replace("_", ", "): count for name, count in ledger["forms"].items()}
    continued = ledger.get("continuations", 0)
    return {
        **forms,
        **{f"changed by {name}": count for name, count in ledger["repairs"].items()},
        **{f"records: layout {name}": n for name, n in ledger.get("layouts", {}).items()},
        **{f"records: {name} is not carried": n for name, n in ledger.get("ignored", {}).items()},
        **(
            {"records: continuations, whose beginning is not there": continued} if continued else {}
        ),
    }


def _histogram(items: Sequence[tuple[str, int]]) -> list[tuple[str, int, float]]:
    """(label, count, percent of the highest count), without the empty bins at the end."""
    last = max((place for place, (_, count) in enumerate(items, 1) if count), default=0)
    most = max((count for _, count in items), default=1)
    return [(label, count, 100 * count / most) for label, count in items[:last]]


def render_samples(report: Report, samples: Sequence[Sample]) -> str:
    """The page of all samples."""
    return _ENVIRONMENT.get_template("samples.html").render(report=report, samples=samples)


def first_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Those that the report itself shows: it opens at once, however much was said in the dump.

    The first of each rule, and as many others as fit.
    """
    shown: list[Sample] = []
    rules: set[str] = set()
    budget = _MAX_SAMPLE_CHARS
    for sample in samples:
        size = len(sample.raw_text) + sum(len(turn.body) for turn in (*sample.raw, *sample.clean))
        if sample.rule not in rules or size <= budget:
            shown.append(sample)
            rules.add(sample.rule)
            budget -= size
    return shown


def all_samples(samples: Mapping[str, Sequence[SampleLine]]) -> list[Sample]:
    return [
        Sample(
            rule=rule,
            id=sample["id"],
            detail=sample["detail"],
            raw=_raw_turns(sample["raw"]),
            raw_text=sample["raw"][:_MAX_TURN_CHARS],
            clean=[
                Turn(role=turn["role"], body=_markdown(turn["content"]))
                for turn in sample["messages"]
            ],
        )
        for rule in sorted(samples, key=lambda name: (name != "kept", name))
        for sample in samples[rule]
    ]


def _raw_turns(text: str) -> list[Turn]:
    turns = records.raw_turns(text) or []
    return [Turn(role=role, body=value[:_MAX_TURN_CHARS]) for role, value in turns]


def _markdown(text: str) -> Markup:
    """HTML of an answer; what is HTML in it stays text."""
    return Markup(_MARKDOWN.render(text[:_MAX_TURN_CHARS]))


_ENVIRONMENT = environment(Path(__file__).parent / "templates", {"histogram": _histogram})
