"""What a command tells its user while it works.

On a terminal: rich progress bars and short lines. Anywhere else, or with `--log-format json`: one
JSON object per event on standard output, `{"event": "clean.done", "time": 1790000000.0, ...}`,
which `ray job logs`, a file or a log collector can read.
"""

import contextlib
import json
import sys
import time
from collections.abc import Generator, Iterable
from typing import Literal, Protocol, TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from apps.common.files.json_floats import to_json

LogFormat = Literal["auto", "json", "text"]
_JSON_PROGRESS_INTERVAL_S = 5.0


class Bar(Protocol):
    """Progress of one stage."""

    def advance(self, amount: float = 1, **fields: object) -> None:
        """Move forward by `amount` units and show the latest `fields` (loss=1.2, kept=40)."""
        ...

    def total(self, amount: float) -> None:
        """Set the total once it is known."""
        ...


class Reporter:
    """Writes events and progress in the chosen format."""

    def __init__(self, log_format: LogFormat = "auto", stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        is_terminal = self._stream.isatty()
        self.is_json = log_format == "json" or (log_format == "auto" and not is_terminal)
        self._console = Console(file=self._stream, highlight=False, emoji=False, soft_wrap=True)

    def event(self, name: str, **fields: object) -> None:
        """One finished fact, such as `("clean.done", kept=40, dropped=2)`."""
        if self.is_json:
            self._write_json(name, fields)
        else:
            self._console.print(Text.assemble((name, "bold"), "  ", _pairs(fields)))

    def line(self, text: str) -> None:
        """A sentence for a person."""
        if self.is_json:
            self._write_json("message", {"text": text})
        else:
            self._console.print(text, markup=False)

    @contextlib.contextmanager
    def progress(
        self, stage: str, total: float | None = None, unit: str = "items"
    ) -> Generator[Bar]:
        """A progress bar of `stage`, or throttled `<stage>.progress` events."""
        if self.is_json:
            bar = _JsonBar(self, stage, total, unit)
            yield bar
            bar.finish()
            return
        columns = (
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with _TwoLines(*columns, console=self._console) as progress:
            yield _RichBar(progress, progress.add_task(stage, total=total, pairs=""))

    def _write_json(self, name: str, fields: dict[str, object]) -> None:
        record = {"event": name, "time": round(time.time(), 3), **fields}
        text = json.dumps(to_json(record), ensure_ascii=False, default=str)
        self._stream.write(text + "\n")
        self._stream.flush()


class _TwoLines(Progress):
    """The bar, and its latest fields below it: in one line they would crowd out the bar."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["pairs"]:
                yield Text("  " + task.fields["pairs"], no_wrap=True, overflow="ellipsis")


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, amount: float = 1, **fields: object) -> None:
        if fields:
            self._progress.update(self._task, advance=amount, pairs=_pairs(fields))
        else:
            self._progress.update(self._task, advance=amount)

    def total(self, amount: float) -> None:
        self._progress.update(self._task, total=amount)


class _JsonBar:
    def __init__(self, reporter: Reporter, stage: str, total: float | None, unit: str) -> None:
        self._reporter = reporter
        self._stage = stage
        self._total = total
        self._unit = unit
        self._done = 0.0
        self._fields: dict[str, object] = {}
        self._last_s = time.monotonic()

    def advance(self, amount: float = 1, **fields: object) -> None:
        self._done += amount
        self._fields.update(fields)
        if time.monotonic() - self._last_s >= _JSON_PROGRESS_INTERVAL_S:
            self._emit()

    def total(self, amount: float) -> None:
        self._total = amount

    def finish(self) -> None:
        self._emit()

    def _emit(self) -> None:
        self._last_s = time.monotonic()
        self._reporter.event(
            f"{self._stage}.progress",
            done=_plain_number(self._done),
            total=self._total,
            unit=self._unit,
            **self._fields,
        )


def _pairs(fields: dict[str, object]) -> str:
    return "  ".join(f"{k}={_short(v)}" for k, v in fields.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain_number(value: float) -> float | int:
    return int(value) if value == int(value) else value
