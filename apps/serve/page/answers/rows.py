"""The rows of the answers that processes of the page work on. Blocking: called in threads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.serve.page.answers.giveaway import gives_away
from apps.serve.page.store.conversations import OPEN, messages_before
from apps.serve.page.store.database import Database, new_id, now_s
from apps.serve.page.store.tables import Conversation, Request, Turn
from apps.serve.page.store.votes import NAMES_A_MODEL

_SILENT_S = 5.0
"""an owner that has said nothing for so long is gone"""


@dataclass(slots=True)
class Snapshot:
    """An answer as it stands."""

    text: str
    status: str
    error: str = ""
    place: int = 0
    """how many answers of the same model wait in front; 0 once there is text"""

    @property
    def is_final(self) -> bool:
        return self.status not in OPEN


@dataclass(frozen=True, slots=True)
class Beat:
    """What the owner of an answer says once a second."""

    text: str
    last_event: str
    watched_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Order:
    """What a model is to be asked."""

    model: str
    messages: list[dict[str, str]]
    settings: dict[str, object]
    text: str
    last_event: str
    """how far the last owner came, where the API numbers its events"""
    tokens: int
    """that this answer has cost so far"""


@dataclass(frozen=True, slots=True)
class End:
    """How an answer ended."""

    snapshot: Snapshot
    finish_reason: str
    tokens: int
    flags: dict[str, object]
    shown: str
    """what pages had, which may be more than what is kept"""


class TurnRows:
    """Reads and writes for one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._me = new_id()

    def claim(self, turn_id: str) -> bool:
        """Whether the answer is this process's from now on."""
        silent = sa.or_(Turn.owner == "", Turn.beat_s < now_s() - _SILENT_S)
        with self._database.write() as session:
            claim = sa.update(Turn).where(Turn.id == turn_id, Turn.status.in_(OPEN), silent)
            values = {"owner": self._me, "beat_s": now_s(), "watched_s": now_s()}
            return session.scalar(claim.values(**values).returning(Turn.id)) is not None

    def release(self) -> None:
        with self._database.write() as session:
            mine = sa.update(Turn).where(Turn.owner == self._me, Turn.status.in_(OPEN))
            session.execute(mine.values(owner="", beat_s=0.0))

    def order(self, turn_id: str) -> Order:
        with self._database.read() as session:
            turn = session.get_one(Turn, turn_id)
            conversation = session.get_one(Conversation, turn.conversation_id)
            given, request = conversation.settings, session.get(Request, turn_id)
            settings = {name: given[name] for name in ("temperature", "top_p") if name in given}
            if "max_tokens" in given:
                settings["max_completion_tokens"] = given["max_tokens"]
            return Order(
                conversation.model,
                messages_before(session, turn),
                settings,
                turn.answer if turn.last_event else "",
                turn.last_event,
                request.tokens if request else 0,
            )

    def stop(self, turn_id: str, said: tuple[str, int] | None) -> bool:
        """Whether it was still open; `said`: text and tokens so far, where the caller knows."""
        values: dict[str, object] = {"status": "stopped", "finish_reason": "stopped"}
        with self._database.write() as session:
            if said is not None:
                values["answer"] = said[0]
            stop = sa.update(Turn).where(Turn.id == turn_id, Turn.status.in_(OPEN))
            was_open = session.scalar(stop.values(**values).returning(Turn.id)) is not None
            if was_open:
                turn = session.get_one(Turn, turn_id, populate_existing=True)
                _note_names(session, turn, turn.answer)
            if was_open and said is not None:
                _spend(session, {turn_id: said[1]})
            return was_open

    def end(self, turn_id: str, end: End) -> bool:
        """Before any page hears of the end; False when the answer is not ours any more."""
        with self._database.write() as session:
            turn = session.get(Turn, turn_id, with_for_update=True)
            if turn is None or turn.owner != self._me or turn.status not in OPEN:
                return False
            now = end.snapshot
            turn.answer, turn.status, turn.error = now.text, now.status, now.error
            turn.finish_reason = end.finish_reason
            _spend(session, {turn_id: end.tokens})
            turn.flags = {**turn.flags, **end.flags}
            _note_names(session, turn, end.shown)
        return True

    def shown(self, turn_id: str, text: str) -> None:
        """What pages had of an answer that another process has ended, which may know less."""
        with self._database.write() as session:
            if (turn := session.get(Turn, turn_id, with_for_update=True)) is not None:
                _note_names(session, turn, text)

    def beat(self, beats: Mapping[str, Beat]) -> dict[str, tuple[float, int]]:
        """(when last watched, place in line) of the answers that are still ours."""
        with self._database.write() as session:
            query = sa.select(Turn.id, Turn.watched_s, Turn.created_s, Conversation.model)
            query = query.join(Conversation, Conversation.id == Turn.conversation_id)
            mine = sa.and_(Turn.owner == self._me, Turn.status.in_(OPEN), Turn.id.in_(beats))
            # Locked, so that an end meanwhile is either seen here or comes after these writes.
            rows = session.execute(query.where(mine).with_for_update(of=Turn)).all()
            if rows:
                self._write(session, {row.id: (beats[row.id], row.watched_s) for row in rows})
            waiting = session.execute(
                sa.select(Conversation.model, Turn.created_s)
                .join(Conversation, Conversation.id == Turn.conversation_id)
                .where(Turn.status == "waiting", Turn.beat_s > now_s() - _SILENT_S)
            ).all()
        return {
            row.id: (
                row.watched_s,
                sum(w.model == row.model and w.created_s < row.created_s for w in waiting),
            )
            for row in rows
        }

    def _write(self, session: Session, beats: Mapping[str, tuple[Beat, float]]) -> None:
        beat = sa.update(Turn).where(Turn.id == sa.bindparam("turn_id"))
        values = {
            "answer": sa.bindparam("text"),
            "last_event": sa.bindparam("event"),
            "status": sa.bindparam("new_status"),
            "watched_s": sa.bindparam("seen_s"),
            "beat_s": now_s(),
        }
        session.connection().execute(
            beat.values(**values),
            [
                {
                    "turn_id": turn_id,
                    "text": beat.text,
                    "event": beat.last_event,
                    "new_status": "running" if beat.text else "waiting",
                    "seen_s": max(watched_s, beat.watched_s),
                }
                for turn_id, (beat, watched_s) in beats.items()
            ],
        )
        _spend(session, {turn_id: beat.tokens for turn_id, (beat, _) in beats.items()})

    def stored(self, turn_ids: Sequence[str]) -> dict[str, tuple[Snapshot, bool]]:
        """What the database has, and whether its owner has fallen silent; says that one looks."""
        with self._database.read() as session:
            turns = list(session.scalars(sa.select(Turn).where(Turn.id.in_(turn_ids))))
        is_open = [turn.id for turn in turns if turn.status in OPEN]
        if any(turn.watched_s < now_s() - _SILENT_S for turn in turns if turn.status in OPEN):
            with self._database.write() as session:
                looked = sa.update(Turn).where(Turn.id.in_(is_open))
                session.execute(looked.values(watched_s=now_s()))
        return {
            turn.id: (
                Snapshot(turn.answer, turn.status, turn.error),
                turn.owner == "" or turn.beat_s < now_s() - _SILENT_S,
            )
            for turn in turns
        }


def _note_names(session: Session, turn: Turn, shown: str) -> None:
    """A visitor who was told the name votes on it, however the answer ended."""
    model = session.get_one(Conversation, turn.conversation_id).model
    if gives_away(model, shown):
        turn.flags = {**turn.flags, NAMES_A_MODEL: True}


def _spend(session: Session, tokens: Mapping[str, int]) -> None:
    """What the answers have cost, for the limits."""
    spent = sa.update(Request).where(Request.id == sa.bindparam("turn_id"))
    session.connection().execute(
        spent.values(tokens=sa.bindparam("so_far")),
        [{"turn_id": turn_id, "so_far": num} for turn_id, num in tokens.items()],
    )
