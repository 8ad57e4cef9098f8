"""Whether a judge can be read at all, found out at the price of a few calls.

Until its first readable verdict a judge is on trial, and what it said unreadably is asked for again
one by one. Once as many judgments as end a trial are in doubt, no new one is begun. If all of those
stay unreadable it is asked no more, because every other call would be paid for nothing.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from apps.eval.calls.outage import EndpointLostError

UNREADABLE_TO_STOP = 5


class UnreadableJudgeError(EndpointLostError):
    """The first verdicts of a judge could all not be read."""


class Readability:
    """One judge's trial."""

    def __init__(self, judge: str, is_proven: bool = False) -> None:
        self._judge = judge
        self._is_proven = is_proven
        self._doubted = 0
        self._unreadable = 0
        self._changed = asyncio.Condition()
        self._repairs = asyncio.Lock()

    @property
    def has_room(self) -> bool:
        """Whether a new judgment may be begun."""
        in_doubt = self._doubted + self._unreadable
        return self._is_proven or in_doubt < UNREADABLE_TO_STOP

    async def wait_for_room(self) -> None:
        """Returns when a new judgment may be begun."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.has_room)

    def begin_doubt(self) -> None:
        """A response will be repaired. Call this before its place goes to the next call."""
        self._doubted += 1

    @asynccontextmanager
    async def repair(self) -> AsyncGenerator[None]:
        """Held while its verdict is asked for again; one by one during the trial. Ends a doubt."""
        try:
            if self._is_proven:
                yield
                return
            async with self._repairs:
                yield
        finally:
            async with self._changed:
                self._doubted -= 1
                self._changed.notify_all()

    async def read(self) -> None:
        """A verdict was readable: the trial is over."""
        if not self._is_proven:
            self._is_proven = True
            async with self._changed:
                self._changed.notify_all()

    def give_up(self, failure: str | None = None) -> None:
        """A judgment stays unreadable. Raises UnreadableJudgeError where it ends the trial.

        `failure` is why the request for its verdict alone, or with more room, found no reply.
        """
        self._unreadable += 1
        if not self._is_proven and self._unreadable >= UNREADABLE_TO_STOP:
            raise unreadable_judge(self._judge, failure)


def unreadable_judge(judge: str, failure: str | None = None) -> UnreadableJudgeError:
    once_more, later = "", "those that cannot are never asked for again"
    if failure:
        once_more = f", and asked again it gives none ({failure})"
        later = "the next run asks for the others again"
    return UnreadableJudgeError(
        f"none of the first {UNREADABLE_TO_STOP} verdicts of {judge!r} can be read{once_more}, so "
        "it is asked no more; look at their response_text in judgments/raw.jsonl, and name another "
        "--judge, another --protocol or more --max-tokens: those that were read are kept, and "
        f"{later}"
    )
