"""The last run of each benchmark, and the page that shows them: benchmarks/README.md.

    python -m benchmarks.results          # writes README.md's table anew from results/*.json

A benchmark ends with `save("data", result)`. Bars without a run keep their row and say so. A run of
some parts leaves the others as they were, with the date and machine of theirs under `earlier`.
"""

import datetime
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: what is claimed, the bar, and how the figure is read from a result."""

    what: str
    bar: str
    script: str
    figure: Callable[[Result], str]
    part: str = ""
    """of a result that may be measured in parts"""


def _ratio(*path: str) -> Callable[[Result], str]:
    return lambda result: f"{_at(result, *path):.2f}"


def _percent(*path: str) -> Callable[[Result], str]:
    return lambda result: f"{100 * _at(result, *path):.2f} %"


def _at(result: Result, *path: str) -> float:
    value: Any = result
    for key in path:
        value = value[key]
    return float(value)


def _over(part: str, ours: str, theirs: str) -> Callable[[Result], str]:
    def figure(result: Result) -> str:
        ratio = _at(result, part, ours, "tokens_per_s") / _at(result, part, theirs, "tokens_per_s")
        return f"{ratio:.2f}"

    return figure


def _over_best(part: str, clients: str) -> Callable[[Result], str]:
    """Over the fastest of the others."""

    def figure(result: Result) -> str:
        speeds = {
            name.removesuffix(f" {clients}"): _at(result, part, name, "tokens_per_s")
            for name in result[part]
            if name.endswith(f" {clients}")
        }
        ours = speeds.pop("ours")
        return f"{ours / max(speed for speed in speeds.values() if speed == speed):.2f}"

    return figure


def _trial(title: str) -> Callable[[Result], str]:
    def figure(result: Result) -> str:
        row = next(row for row in result["trials"] if row["trial"] == title)
        ours = row["cria"]
        return f"{ours['wall_s'] / row['ideal_s']:.2f}, {ours['judged']} of {ours['of']} judged"

    return figure


def _kills(result: Result) -> str:
    kills = result["kills"]
    return f"{kills['repeats']} repeats, {kills['in_flight_at_kills']} in flight"


BARS = (
    Bar("HTML to Markdown, MB/s a core", ">= 30", "data", _ratio("ratios", "html MB/s")),
    Bar("the same over FastChat", ">= 8", "data", _ratio("ratios", "html / FastChat")),
    Bar("every rule, MB/s a core", ">= 9", "data", _ratio("ratios", "clean strict MB/s")),
    Bar(
        "FastChat's rules, over FastChat",
        ">= 5.5",
        "data",
        _ratio("ratios", "clean FastChat's rules / FastChat"),
    ),
    Bar(
        "answers that are Markdown already, unchanged",
        "100 %",
        "data",
        _percent("already_markdown", "ours"),
    ),
    Bar("two workers over one", ">= 1.65", "data", _ratio("ratios", "two workers / one")),
    Bar(
        "clean, split and tokenize, MB/s a core",
        ">= 2.5",
        "pack",
        _ratio("speed", "ours", "mb_per_s"),
    ),
    Bar("fill of rows of 2,048 tokens", ">= 99 %", "pack", _percent("fill", "pack")),
    Bar(
        "training over the padded Trainer",
        ">= 1.7",
        "train",
        _ratio("ratios", "ours / Trainer, padded"),
    ),
    Bar("training over TRL's best", ">= 1.5", "train", _ratio("ratios", "ours / TRL, its best")),
    Bar("training stalled by checkpoints", "<= 5 %", "train", _percent("stall_share")),
    Bar(
        "engine over transformers, static batch",
        ">= 1.5",
        "serve",
        _over("engine", "ours", "static"),
        "engine",
    ),
    Bar(
        "engine over transformers, continuous",
        ">= 3",
        "serve",
        _over("engine", "ours", "continuous"),
        "engine",
    ),
    Bar(
        "engine over openvino-genai",
        ">= 0.7",
        "serve",
        _over("engine", "ours", "openvino"),
        "engine",
    ),
    *(
        Bar(
            f"bfloat16 engine over the best peer, {clients} at once",
            bar,
            "serve",
            _over_best("bf16", str(clients)),
            "bf16",
        )
        for clients, bar in ((32, ">= 1"), (1, ">= 0.9"))
    ),
    Bar(
        "API over FastChat, 32 clients",
        ">= 5",
        "serve",
        _over("api", "ours 32", "fastchat 32"),
        "api",
    ),
    Bar(
        "API over its bare engine, 32 clients",
        ">= 0.97",
        "serve",
        _over("overhead", "api 32", "bare 32"),
        "overhead",
    ),
    Bar(
        "start until two models answer, s",
        "<= 15",
        "serve",
        _ratio("start", "ours", "ready_s"),
        "start",
    ),
    Bar(
        "later turns cached, two replicas over one",
        ">= 0.95",
        "routing",
        _ratio("ratios", "cached, two / one"),
    ),
    Bar("640 judge calls, over the ideal time", "<= 1.1", "judge", _trial("constant latency")),
    Bar("the same with 20 % faults", "640 of 640", "judge", _trial("20 % faults")),
    Bar("calls repeated after five kill -9", "<= in flight", "judge", _kills),
    Bar("ratings of 100,000 battles, s", "<= 2", "judge", _ratio("ratings_s")),
)


def save(
    script: str, result: Result, path: str | Path | None = None, *, in_parts: bool = False
) -> Path:
    """Writes results/<script>.json, or `path`, with date, machine and command.

    `in_parts`: top-level keys that were not measured this time stay as they are.
    """
    where = Path(path) if path else RESULTS / f"{script}.json"
    where.parent.mkdir(parents=True, exist_ok=True)
    module = f"benchmarks.{Path(sys.argv[0]).stem}"
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
    }
    kept = _kept(json.loads(where.read_text()), result) if in_parts and where.exists() else {}
    where.write_text(json.dumps({"measured": about, **kept, **result}, indent=2))
    return where


def _kept(before: Result, result: Result) -> Result:
    """The parts that only an earlier run has, and when each was measured."""
    measured, earlier = before.pop("measured"), before.pop("earlier", {})
    parts = {part: value for part, value in before.items() if part not in result}
    when = {part: earlier.get(part, measured) for part in parts}
    return {"earlier": when, **parts} if parts else {}


def _processor() -> str:
    """As the kernel names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(folder: Path = RESULTS) -> str:
    """Markdown, one row a bar."""
    results = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    rows = ["| what | bar | figure | script | measured |", "|---|---|---|---|---|"]
    for bar in BARS:
        figure, when = _measured(bar, results.get(bar.script))
        rows.append(f"| {bar.what} | {bar.bar} | {figure} | `{bar.script}.py` | {when} |")
    return "\n".join(rows)


def _measured(bar: Bar, result: Result | None) -> tuple[str, str]:
    if result is None:
        return "not run", ""
    try:
        figure = bar.figure(result)
    except (KeyError, StopIteration, TypeError):
        return "not in this run", result["measured"]["date"]
    about = result.get("earlier", {}).get(bar.part, result["measured"])
    return figure, f"{about['date']}, {about['machine']}"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
