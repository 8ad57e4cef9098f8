"""What became of a dump: numbers from the ledger and the shards, samples, one page.

    python -m apps.data report clean [--pack pack]

writes report.json and report.html into the clean folder; where the samples are long, all of them
are in samples.html beside it.
"""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
from pyarrow import compute

from apps.common.command.events import Reporter
from apps.common.errors import NotFoundError
from apps.common.files import schema, storage
from apps.data import report_page
from apps.data.clean import SAMPLES_NAME
from apps.data.clean_range import SAMPLE_CHARS
from apps.data.config import ReportConfig
from apps.data.duplicates.decide import RULES as DUPLICATE_RULES
from apps.data.read.reader import REFUSALS
from apps.data.report_content import (
    FunnelStep,
    Histogram,
    Ledger,
    Report,
    SampleLine,
    SampleMessage,
    Shapes,
    UnitCounts,
)
from apps.data.rules.profiles import Rules
from apps.data.write import tables

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

_TURN_EDGES = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50]
"""Rounds; the last bin is open."""
_CHAR_EDGES = [0, 125, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000]
_QUALITY_BINS = 10
_LOWEST = 5
"""Conversations of the lowest quality that are shown."""
PERSONAL_QUALITY = files("apps.data.rules") / "personal_quality.json"
"""Precision and recall of what is masked (benchmarks/data_personal.py)."""
_RAW_SAMPLE_BYTES = 2000
_SAMPLE_MESSAGES = 8


def write_report(config: ReportConfig, reporter: Reporter) -> None:
    """Raises NotFoundError when the folder holds no finished output of `clean`."""
    if storage.read_commit(config.folder) is None:
        raise NotFoundError(
            f"{config.folder} holds no finished output of `python -m apps.data clean`; "
            "finish that command, or name its --out folder."
        )
    content = collect(config.folder, config.pack)
    out = config.out or config.folder
    storage.write_json(storage.join(out, "report.json"), content)
    samples = report_page.all_samples(content["samples"])
    shown = report_page.first_samples(samples)
    page = report_page.render(content, shown, len(samples) - len(shown))
    storage.write_atomic(storage.join(out, "report.html"), page.encode())
    if len(shown) < len(samples):
        others = report_page.render_samples(content, samples)
        storage.write_atomic(storage.join(out, "samples.html"), others.encode())
    reporter.event("report.done", page=storage.join(out, "report.html"), **content["totals"])


def collect(folder: str, pack: str | None = None) -> Report:
    """Everything the page shows."""
    ledger: Ledger = storage.read_json(storage.join(folder, schema.LEDGER_NAME))
    lineage = storage.read_json(storage.join(folder, schema.LINEAGE_NAME))
    records = ledger["records"]
    shapes, lowest = _shapes(folder)
    report: Report = {
        "folder": folder,
        "inputs": lineage["inputs"],
        "created": lineage["created"],
        "git_commit": lineage["git_commit"],
        "totals": {
            "records": records["input"],
            "kept": records["kept"],
            "dropped": sum(records["dropped"].values()),
            "quarantined": sum(records["quarantined"].values()),
        },
        "ledger": ledger,
        "funnel": funnel(records),
        **shapes,
        "samples": ({"lowest quality": lowest} if lowest else {})
        | _set_aside(folder, records)
        | storage.read_json(storage.join(folder, SAMPLES_NAME)),
    }
    if "personal_data" in ledger["repairs"]:
        report["personal_data"] = json.loads(PERSONAL_QUALITY.read_text())
    if pack is not None:
        report["pack"] = storage.read_json(storage.join(pack, schema.PACK_NAME))
    return report


def funnel(records: UnitCounts) -> list[FunnelStep]:
    """Records left after each rule that dropped some, in the order of application."""
    left = records["input"]
    steps: list[FunnelStep] = [{"step": "read", "left": left, "gone": 0}]
    if quarantined := sum(records["quarantined"].values()):
        left -= quarantined
        steps.append({"step": "quarantine", "left": left, "gone": quarantined})
    if joined := records.get("joined", 0):
        left -= joined
        steps.append({"step": "joined into others", "left": left, "gone": joined})
    order = [*REFUSALS, *(field.name for field in dataclasses.fields(Rules))]
    for rule in sorted(records["dropped"], key=order.index):
        left -= records["dropped"][rule]
        steps.append({"step": rule, "left": left, "gone": records["dropped"][rule]})
    return steps


def _set_aside(folder: str, records: UnitCounts) -> dict[str, list[SampleLine]]:
    """The first duplicate of each rule and the first broken record of each reason."""
    samples: dict[str, list[SampleLine]] = {}
    rules = set(records["dropped"]) & set(DUPLICATE_RULES)
    dropped = storage.join(folder, schema.DROPPED_DIR)
    for row in _first_of_each(dropped, "duplicates-", "rule", rules):
        value = orjson.loads(row["record"])
        samples[row["rule"]] = [
            SampleLine(
                id=row["id"],
                detail=f"repeats {row['detail']}",
                messages=_opening(value["messages"]),
                raw=row["record"][:SAMPLE_CHARS],
            )
        ]
    reasons = set(records["quarantined"]) - {"damaged-file"}
    broken = storage.join(folder, schema.QUARANTINE_DIR)
    for row in _first_of_each(broken, "part-", "reason", reasons):
        place = f"{row['source']} at byte {row['start_byte']:,}"
        raw = row["raw"][:_RAW_SAMPLE_BYTES].decode("utf-8", "replace")
        samples[f"quarantine: {row['reason']}"] = [
            SampleLine(id=place, detail="", raw=raw, messages=[])
        ]
    return samples


def _opening(messages: list[SampleMessage]) -> list[SampleMessage]:
    """The first messages, each as far as a sample shows it."""
    return [
        {**one, "content": one["content"][:SAMPLE_CHARS]} for one in messages[:_SAMPLE_MESSAGES]
    ]


def _first_of_each(
    folder: str, prefix: str, column: str, wanted: set[str]
) -> Iterator[dict[str, Any]]:
    """The first row of each wanted value of a column, in the files whose names start so."""
    for name in storage.list_dir(folder):
        if not name.startswith(prefix):
            continue
        for table in tables.batches(storage.join(folder, name)):
            values = table[column].to_pylist()
            for value in wanted & set(values):
                yield table.slice(values.index(value), 1).to_pylist()[0]
                wanted.discard(value)
            if not wanted:
                return


def _shapes(folder: str) -> tuple[Shapes, list[SampleLine]]:
    """Histograms of what was kept and its samples of lowest quality, in one pass."""
    rounds = np.zeros(len(_TURN_EDGES), dtype=np.int64)
    chars = np.zeros(len(_CHAR_EDGES), dtype=np.int64)
    quality = np.zeros(_QUALITY_BINS, dtype=np.int64)
    languages: Counter[str] = Counter()
    lowest: list[SampleLine] = []
    for table in _shards(folder):
        roles, lengths, owners = _messages(table)
        answers = np.bincount(owners[roles == "assistant"], minlength=len(table))
        rounds += _histogram(np.maximum(answers, 1), _TURN_EDGES)
        chars += _histogram(np.bincount(owners, lengths, minlength=len(table)), _CHAR_EDGES)
        scores = _quality(table)
        bins = np.minimum(
            (scores[~np.isnan(scores)] * _QUALITY_BINS).astype(int), _QUALITY_BINS - 1
        )
        quality += np.bincount(bins, minlength=_QUALITY_BINS)
        lowest = _lowest(lowest, table, scores)
        languages.update(code or "unknown" for code in table["language"].to_pylist())
    bins = [f"{i / _QUALITY_BINS:.1f}-{(i + 1) / _QUALITY_BINS:.1f}" for i in range(_QUALITY_BINS)]
    shapes: Shapes = {
        "rounds": _labelled(rounds, _TURN_EDGES),
        "chars": _labelled(chars, _CHAR_EDGES),
        "quality": [*zip(bins, quality.tolist(), strict=True)] if quality.any() else [],
        "languages": languages.most_common(),
    }
    return shapes, lowest


def _shards(folder: str) -> Iterator[pa.Table]:
    for name in storage.list_dir(folder):
        if name.endswith(".parquet"):
            yield from tables.batches(storage.join(folder, name), _COLUMNS)


_COLUMNS = ["id", "messages", "language", "scores"]


def _quality(table: pa.Table) -> Floats:
    """The score of each conversation; NaN where it was not scored."""
    scores = table["scores"].combine_chunks()
    owners = np.repeat(np.arange(len(table)), np.diff(scores.offsets.to_numpy()))
    is_quality = scores.keys.to_numpy(zero_copy_only=False) == "quality"
    quality = np.full(len(table), np.nan)
    quality[owners[is_quality]] = scores.items.to_numpy(zero_copy_only=False)[is_quality]
    return quality


def _lowest(before: list[SampleLine], table: pa.Table, scores: Floats) -> list[SampleLine]:
    """The samples of the lowest quality so far, in the order of score and id."""
    rows = [row for row in np.argsort(scores, kind="stable")[:_LOWEST] if not np.isnan(scores[row])]
    samples: list[SampleLine] = [
        SampleLine(
            id=row["id"],
            detail=f"{scores[place]:.2f}",
            raw="",
            messages=_opening(row["messages"]),
        )
        for place in rows
        for row in table.slice(place, 1).to_pylist()
    ]
    return sorted([*before, *samples], key=lambda one: (one["detail"], one["id"]))[:_LOWEST]


def _messages(table: pa.Table) -> tuple[npt.NDArray[np.object_], Ints, Ints]:
    """Role, characters and row of every message."""
    messages = table["messages"].combine_chunks()
    flat = messages.flatten()
    counts = compute.call_function("list_value_length", [messages]).to_numpy()
    roles = flat.field("role").to_numpy(zero_copy_only=False)
    lengths = compute.call_function("utf8_length", [flat.field("content")]).to_numpy()
    return roles, lengths, np.repeat(np.arange(len(table)), counts)


def _histogram(values: Ints, edges: list[int]) -> Ints:
    bins = np.searchsorted(edges, values, side="right") - 1
    return np.bincount(np.clip(bins, 0, len(edges) - 1), minlength=len(edges))


def _labelled(counts: Ints, edges: list[int]) -> Histogram:
    labels: list[str] = []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        if high is None:
            labels.append(f"{low:,}+")
        elif high - low == 1:
            labels.append(f"{low}")
        else:
            labels.append(f"{low:,}-{high - 1:,}")
    return [(label, int(count)) for label, count in zip(labels, counts, strict=True)]
