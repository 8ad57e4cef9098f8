"""The table at the end of the demo, read from the artifacts that the four apps left."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from apps.common.command.events import Reporter
from apps.common.files import parts, schema, storage
from apps.quickstart.general import GeneralChat

_EDGE_STEPS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Figures of one run of the loop."""

    records: int
    """conversations in the raw dump"""
    kept: int
    dropped: dict[str, int]
    """conversations by the rule that dropped them"""
    quarantined: int
    tokens: int
    """in packed training rows, without padding"""
    fill: float
    loss_first: float
    """mean of the first ten steps"""
    loss_last: float
    """mean of the last ten steps"""
    tokens_per_s: float
    """median over the steps"""
    accuracy: dict[str, float]
    """share of held-out questions answered exactly, by model"""
    preference: dict[str, Any] | None
    """whom the judge prefers, with its wins, ties and losses; None on equal wins"""
    judge: str
    general_kept: float | None
    """likelihood under the base of the tuned model's everyday answers, as a share of the base's
    own; None where no everyday questions were asked"""


def collect(dirs: Mapping[str, str], kept: GeneralChat | None) -> Summary:
    """Read the ledger, the pack, the metrics and the report."""
    ledger = storage.read_json(f"{dirs['clean']}/{schema.LEDGER_NAME}")["records"]
    pack = storage.read_json(f"{dirs['pack']}/{schema.PACK_NAME}")["splits"]["train"]
    steps = _steps(f"{dirs['run']}/{schema.METRICS_NAME}")
    report = storage.read_json(f"{dirs['eval']}/report.json")
    verdict = next(iter(report["protocols"].values()))
    speeds = sorted(float(row["tokens_per_s"]) for row in steps)
    return Summary(
        records=ledger["input"],
        kept=ledger["kept"],
        dropped=ledger["dropped"],
        quarantined=sum(ledger["quarantined"].values()),
        tokens=pack["num_tokens"],
        fill=pack["fill"],
        loss_first=_mean_loss(steps[:_EDGE_STEPS]),
        loss_last=_mean_loss(steps[-_EDGE_STEPS:]),
        tokens_per_s=speeds[len(speeds) // 2],
        accuracy={
            name: model["accuracy"]["correct"] / model["accuracy"]["total"]
            for name, model in report["models"].items()
        },
        preference=verdict["preference"],
        judge=", ".join(verdict["judge_labels"]),
        general_kept=None if kept is None else kept.kept,
    )


def show(
    result: Summary, addresses: Mapping[str, str], reporter: Reporter, elapsed_s: float
) -> None:
    """A short table on a terminal, one event otherwise."""
    if reporter.is_json:
        fields = dataclasses.asdict(result)
        reporter.event("demo.done", **fields, addresses=dict(addresses), elapsed_s=elapsed_s)
        return
    table = Table(show_header=False, box=None, padding=(0, 2))
    for label, value in [*_rows(result), *addresses.items(), ("took", f"{elapsed_s:.0f} s")]:
        table.add_row(label, value)
    Console().print(table)


def _rows(result: Summary) -> list[tuple[str, str]]:
    dropped = ", ".join(f"{rule} {n}" for rule, n in sorted(result.dropped.items()) if n)
    rows = [
        ("conversations", f"{result.records:,} in, {result.kept:,} kept"),
        ("dropped", f"{dropped or 'none'}; {result.quarantined} in quarantine"),
        ("training tokens", f"{result.tokens:,}, rows {result.fill:.1%} full"),
        ("loss", f"{result.loss_first:.2f} -> {result.loss_last:.2f}"),
        ("speed", f"{result.tokens_per_s:,.0f} tokens/s"),
    ]
    for model, accuracy in result.accuracy.items():
        rows.append((model, f"{accuracy:.1%} of the held-out questions exactly right"))
    if result.general_kept is not None:
        said = f"everyday answers keep {result.general_kept:.1%} of the base's likelihood"
        rows.append(("general chat", said))
    return [*rows, (f"judge ({result.judge})", _verdict(result.preference))]


def _verdict(preference: dict[str, Any] | None) -> str:
    if preference is None:
        return "prefers neither model"
    counts = "{win} wins, {tie} ties, {loss} losses".format(**preference)
    return f"prefers {preference['preferred']}: {counts}"


def _steps(uri: str) -> list[dict[str, Any]]:
    rows = cast(list[dict[str, Any]], parts.records(uri))
    return [row for row in rows if "loss" in row]


def _mean_loss(steps: list[dict[str, Any]]) -> float:
    return sum(float(row["loss"]) for row in steps) / len(steps)
