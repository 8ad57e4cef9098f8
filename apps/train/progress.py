"""What the user sees of a run while it trains: one bar, and a line for everything unusual."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from apps.common.command.events import Bar, Reporter
from apps.common.errors import CriaError
from apps.train.attempts import Attempts, RankFailure
from apps.train.loop.record import Began, Event, Failed, Stepped, Stopped, Told, figures

_INTERVAL_S = 0.25
_ON_THE_BAR = ("loss", "lr", "tokens_per_s", "mfu", "usd", "usd_to_go")


class Shown:
    """What the ranks have told so far."""

    def __init__(
        self, reporter: Reporter, bar: Bar, attempts: Attempts, done_step: Callable[[], int]
    ) -> None:
        self._reporter, self._bar, self._step = reporter, bar, 0
        self._attempts, self._done_step = attempts, done_step
        self._advance(done_step(), {})
        self.has_step = False
        """has a step been taken since the command was started?"""
        self.ended: CriaError | None = None
        """why it ended itself"""
        self.stopped_step: int | None = None
        """step after which the run ended because it was asked to"""

    def take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Began(rank, node):
                    self._attempts.began(rank, node)
                case Failed(failure):
                    self._tell_failure(failure)
                case Stopped(reason):
                    self.ended = reason
                case Stepped(record):
                    self.has_step = True
                    known = dict(figures(record))
                    shown = {name: known[name] for name in _ON_THE_BAR if name in known}
                    self._advance(record["step"], shown)
                case Told(name, fields):
                    if name == "stopped":
                        self.stopped_step = int(str(fields["step"]))
                    self._reporter.event(f"train.{name}", **fields)

    def _tell_failure(self, failure: RankFailure) -> None:
        if self._attempts.failed(failure):
            sentence = self._attempts.sentence(failure)
            self._reporter.event(
                "train.attempt_failed",
                rank=failure.rank,
                reason=f"{sentence} Training starts again from {self._restart()}.",
            )

    def _restart(self) -> str:
        try:
            return f"step {self._done_step()}"
        except CriaError:  # the storage may be what failed
            return "the newest checkpoint"

    def _advance(self, step: int, fields: dict[str, float]) -> None:
        self._bar.advance(step - self._step, **fields)
        self._step = step


@contextlib.contextmanager
def shown(
    take: Callable[[], list[Event]],
    reporter: Reporter,
    attempts: Attempts,
    *,
    num_steps: int,
    done_step: Callable[[], int],
) -> Iterator[Shown]:
    """Show what `take` hands over, until the block ends and nothing is left.

    `done_step` is the step from which an attempt that begins now would go on.
    """
    stop = threading.Event()
    with reporter.progress("train", total=num_steps, unit="steps") as bar:
        seen = Shown(reporter, bar, attempts, done_step)

        def follow() -> None:
            is_last = False
            while not is_last:
                is_last = stop.wait(_INTERVAL_S)
                seen.take(take())

        thread = threading.Thread(target=follow, name="follow-training", daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join(timeout=10)
