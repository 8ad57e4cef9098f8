"""Asks the models and keeps what they say, whether anybody looks or not.

An answer belongs to one process at a time, its owner, who says once a second in the database that
it is at work. When the owner falls silent, whoever is asked for the answer next takes it over. It
goes on behind the last event where the API numbers them, and asks the model again where not. So
neither a reload nor the loss of a process leaves a page waiting.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from apps.serve.page.answers.client import AnswerError, ChatClient, Piece, StreamLost
from apps.serve.page.answers.moderation import (
    ANSWER_BLOCKED,
    ANSWER_UNREAD,
    Moderator,
    UnreadError,
)
from apps.serve.page.answers.rows import Beat, End, Order, Snapshot, TurnRows
from apps.serve.page.store.database import Database, now_s

logger = logging.getLogger("ray.serve")

_BEAT_S = 1.0
_UNWATCHED_S = 60.0
"""a crowded page may take half of it to open a visitor's stream"""
_MODERATE_EVERY_CHARS = 200
_NEWEST_CHARS = 4_000
"""of a growing answer are read; what came before was read before"""
_RECONNECT_S, _LONGEST_PAUSE_S = 0.5, 4.0
_RECONNECT_FOR_S = 60.0
"""a gateway that has lost its process is up again long before"""
_EMPTY = "The model gave an empty answer. Try again."
_BROKEN = "This page failed while it asked the model. Try again."


@dataclass(slots=True)
class _Live:
    """An answer that this process is asking for."""

    now: Snapshot
    last_event: str = ""
    finish_reason: str = ""
    tokens: int = 0
    """that the answer has cost; until the API says, every piece of text is one"""
    tokens_before: int = 0
    """of them, those of streams before this one: the API counts one answer, from its beginning"""
    flags: dict[str, object] = field(default_factory=dict[str, object])
    watched_s: float = field(default_factory=now_s)
    task: asyncio.Task[None] | None = None

    def begin_anew(self) -> None:
        self.last_event, self.now, self.tokens_before = "", Snapshot("", "running"), self.tokens


class Runner:
    """All answers that this process owns."""

    def __init__(self, database: Database, client: ChatClient, moderator: Moderator) -> None:
        self._rows, self._client, self._moderator = TurnRows(database), client, moderator
        self._live: dict[str, _Live] = {}
        self._watchers: Counter[str] = Counter()
        self.num_streams = 0
        """pages that follow answers here"""
        self._beats: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Leaves what is running to the other processes."""
        if self._beats is not None:
            self._beats.cancel()
        tasks = [live.task for live in self._live.values() if live.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._rows.release)

    async def begin(self, turn_id: str, shown: Snapshot | None = None) -> None:
        """Ask the model for this turn's answer, if nobody else does; `shown` is what pages have."""
        if turn_id not in self._live and await asyncio.to_thread(self._rows.claim, turn_id):
            live = self._live[turn_id] = _Live(shown or Snapshot("", "waiting"))
            live.task = asyncio.create_task(self._run(turn_id, live))
            if self._beats is None:
                self._beats = asyncio.create_task(self._beat())

    async def stop(self, turn_id: str) -> None:
        """End an answer where it stands; what has been said is kept."""
        live = self._live.get(turn_id)
        said = (live.now.text, live.tokens) if live else None
        if await asyncio.to_thread(self._rows.stop, turn_id, said) and live:
            self._end(turn_id, live, Snapshot(live.now.text, "stopped"))

    @contextlib.contextmanager
    def watching(self, turn_ids: Sequence[str]) -> Generator[None]:
        """Somebody waits for these answers, however seldom a busy process comes to look."""
        self.num_streams += 1
        self._watchers.update(turn_ids)
        try:
            yield
        finally:
            self.num_streams -= 1
            self._watchers -= Counter(turn_ids)

    async def look(self, turn_ids: Sequence[str]) -> Mapping[str, Snapshot]:
        """The answers as they stand; those that nobody is working on begin anew."""
        # Taken before any await: an answer that ends meanwhile is in neither place otherwise.
        ours = {turn_id: live for turn_id in turn_ids if (live := self._live.get(turn_id))}
        elsewhere = [turn_id for turn_id in turn_ids if turn_id not in ours]
        found = await asyncio.to_thread(self._rows.stored, elsewhere) if elsewhere else {}
        for turn_id, (snapshot, is_silent) in found.items():
            if is_silent and not snapshot.is_final:
                await self.begin(turn_id, snapshot)
        seen = {turn_id: snapshot for turn_id, (snapshot, _) in found.items()}
        for turn_id, live in ours.items():
            live.watched_s = now_s()
            seen[turn_id] = live.now
        return seen

    async def _run(self, turn_id: str, live: _Live) -> None:
        try:
            end = await self._answer(turn_id, live)
        except AnswerError as error:
            end = Snapshot(live.now.text, "failed", str(error))
        except UnreadError:
            end = Snapshot("", "failed", ANSWER_UNREAD)
        except Exception:
            logger.exception("an answer failed")
            end = Snapshot(live.now.text, "failed", _BROKEN)
        try:
            record = End(end, live.finish_reason, live.tokens, live.flags, live.now.text)
            if await asyncio.to_thread(self._rows.end, turn_id, record):
                self._end(turn_id, live, end)
        finally:
            # Whoever looks next finds what the database has, and takes it over if need be.
            self._live.pop(turn_id, None)

    def _end(self, turn_id: str, live: _Live, end: Snapshot) -> None:
        live.now = end
        self._live.pop(turn_id, None)
        if live.task is not None and live.task is not asyncio.current_task():
            live.task.cancel()

    async def _answer(self, turn_id: str, live: _Live) -> Snapshot:
        order = await asyncio.to_thread(self._rows.order, turn_id)
        live.last_event, live.tokens = order.last_event, order.tokens
        live.tokens_before = 0 if order.text else order.tokens
        live.now = Snapshot(order.text, "running" if order.text else "waiting")
        moderated_chars = 0
        pieces = self._pieces(live, order)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                live.finish_reason = piece.finish_reason or live.finish_reason
                told = piece.completion_tokens
                live.tokens = live.tokens_before + told if told else live.tokens + bool(piece.text)
                text = live.now.text + piece.text
                if len(text) - moderated_chars >= _MODERATE_EVERY_CHARS:
                    moderated_chars = len(text)
                    if reason := await self._moderator.reason(text[-_NEWEST_CHARS:]):
                        return self._blocked(live, text, reason)
                # Together, with no await between: a beat keeps both, and they must fit.
                live.last_event = piece.event_id
                live.now = Snapshot(text, "running" if text else "waiting", place=live.now.place)
        text = live.now.text
        if reason := await self._moderator.reason(text[-_NEWEST_CHARS:]):
            return self._blocked(live, text, reason)
        if not text.strip():
            return Snapshot("", "failed", _EMPTY)
        return Snapshot(text, "done")

    async def _pieces(self, live: _Live, order: Order) -> AsyncGenerator[Piece, None]:
        """Connects again behind the last event when a gateway is lost, until one is there again;
        begins anew where the API does not know the stream any more."""
        give_up_s, pause_s = 0.0, _RECONNECT_S
        while True:
            after = live.last_event
            try:
                stream = self._client.stream(order.model, order.messages, order.settings, after)
                async with contextlib.aclosing(stream):
                    async for piece in stream:
                        if not piece.event_id and after:
                            after = ""
                            live.begin_anew()
                        give_up_s, pause_s = 0.0, _RECONNECT_S
                        yield piece
                return
            except AnswerError as error:
                is_lost = isinstance(error, StreamLost)
                give_up_s = give_up_s or time.monotonic() + _RECONNECT_FOR_S
                if not live.last_event or not (after or is_lost) or time.monotonic() > give_up_s:
                    raise
                if not is_lost:
                    live.begin_anew()
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    def _blocked(self, live: _Live, text: str, reason: str) -> Snapshot:
        """What was said is kept with its reason, and not shown."""
        live.flags |= {"blocked": reason, "blocked_text": text}
        return Snapshot("", "blocked", ANSWER_BLOCKED)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                await self._keep_up()
            except Exception:
                logger.exception("the page's database could not be written")

    async def _keep_up(self) -> None:
        """Says that this process is at work; lets go of what others ended or nobody waits for."""
        beats = {
            turn_id: Beat(live.now.text, live.last_event, live.watched_s, live.tokens)
            for turn_id, live in self._live.items()
        }
        still = await asyncio.to_thread(self._rows.beat, beats) if beats else {}
        for turn_id in beats:
            live = self._live.get(turn_id)
            if live is None:
                continue
            if turn_id not in still:
                await asyncio.to_thread(self._rows.shown, turn_id, live.now.text)
                stored = await asyncio.to_thread(self._rows.stored, [turn_id])
                self._end(turn_id, live, stored[turn_id][0] if turn_id in stored else live.now)
                continue
            watched_s, place = still[turn_id]
            now = now_s() if self._watchers[turn_id] else 0.0
            live.watched_s = max(live.watched_s, watched_s, now)
            live.now.place = 0 if live.now.text else place
            if now_s() - live.watched_s > _UNWATCHED_S:
                await self.stop(turn_id)
