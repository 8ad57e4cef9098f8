"""Server-sent events of answers that are on their way: only the blocks that changed.

An event is `{"turn", "keep", "html", "status", ...}`: keep so many blocks of what you have, put
these behind. A page that connects again gets everything from the first block, from any process.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from apps.serve.page.answers.rows import Snapshot
from apps.serve.page.answers.runner import Runner
from apps.serve.page.render.markdown import blocks

_TICK_S = 0.1
_RENDER_SHARE = 2
"""The rendering of all streams of a process takes at most one part in so many of a CPU's time."""
_MAX_TICK_S = 5.0
_SIGN_OF_LIFE_S = 10.0


class AnswerEvent(TypedDict, total=False):
    """Empty: a sign of life. Without `html` the text is as it was."""

    turn: str
    status: str
    error: str
    place: int
    keep: int
    html: list[str]


@dataclass(slots=True)
class _Shown:
    """What the page has of one answer."""

    text: str | None = None
    html: list[str] = field(default_factory=list)
    status: str = ""
    place: int = -1


async def events(runner: Runner, turn_ids: Sequence[str]) -> AsyncGenerator[AnswerEvent, None]:
    """Changes until all answers have ended; an empty event is a sign of life."""
    with runner.watching(turn_ids):
        async with contextlib.aclosing(_changes(runner, turn_ids)) as changes:
            async for event in changes:
                yield event


async def _changes(runner: Runner, turn_ids: Sequence[str]) -> AsyncGenerator[AnswerEvent, None]:
    shown = {turn_id: _Shown() for turn_id in turn_ids}
    open_ids, spoke_s = list(turn_ids), time.monotonic()
    while open_ids:
        worked_s = 0.0
        seen = await runner.look(open_ids)
        for turn_id in list(open_ids):
            snapshot = seen.get(turn_id)
            if snapshot is None or snapshot.is_final:
                open_ids.remove(turn_id)
            if snapshot is None:
                continue
            event, took_s = await _change(turn_id, snapshot, shown[turn_id])
            worked_s += took_s
            if event is not None:
                spoke_s = time.monotonic()
                yield event
        if time.monotonic() - spoke_s > _SIGN_OF_LIFE_S:
            spoke_s = time.monotonic()
            yield {}
        pause_s = _RENDER_SHARE * runner.num_streams * worked_s
        await asyncio.sleep(min(_MAX_TICK_S, max(_TICK_S, pause_s)))


async def _change(turn_id: str, now: Snapshot, shown: _Shown) -> tuple[AnswerEvent | None, float]:
    """The event that brings the page up to date, if it is not; and what CPU time it took."""
    if (now.text, now.status, now.place) == (shown.text, shown.status, shown.place):
        return None, 0.0
    took_s = 0.0
    event: AnswerEvent = {
        "turn": turn_id,
        "status": now.status,
        "error": now.error,
        "place": now.place,
    }
    if now.text != shown.text:
        html, took_s = await asyncio.to_thread(_rendered, now.text)
        keep = _common(shown.html, html)
        event |= {"keep": keep, "html": html[keep:]}
        shown.html = html
    shown.text, shown.status, shown.place = now.text, now.status, now.place
    return event, took_s


def _rendered(text: str) -> tuple[list[str], float]:
    start_s = time.thread_time()
    return blocks(text), time.thread_time() - start_s


def _common(before: Sequence[str], after: Sequence[str]) -> int:
    pairs = zip(before, after, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(after)))
