"""What a visitor can do: ask, stop, ask again, vote, open, share, delete.

Each action takes what the page sent and gives what the page shows, both plain JSON. Whatever it
promises is in the database before it returns.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.serve.page.answers.moderation import (
    QUESTION_BLOCKED,
    QUESTION_UNREAD,
    Moderator,
    UnreadError,
)
from apps.serve.page.answers.runner import Runner
from apps.serve.page.arena import views
from apps.serve.page.arena.models import Models, ModelUp, default_max_tokens
from apps.serve.page.arena.pairing import draw_pair
from apps.serve.page.config import PageConfig
from apps.serve.page.store import conversations as talks
from apps.serve.page.store import limits, log, votes
from apps.serve.page.store.conversations import Asker
from apps.serve.page.store.database import Database, now_s
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.tables import Battle, Conversation, Turn, Visitor

Reply = dict[str, object]
"""what the page gets, as JSON"""
_TURN_ID = re.compile(r"[0-9a-f]{32}")
_MAX_FOLLOWED = 8
_MAX_SYSTEM_CHARS = 4_000
_NOT_UP = "This model is not up right now. Choose another, or try again in a moment."


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What the page sends when somebody asks."""

    id: str
    """32 hex digits of the page's own choice, so that sending twice asks once"""
    text: str
    kind: str = "battle"
    to: str = ""
    """the battle or conversation that goes on; empty: a new one"""
    parent: str = ""
    """the turn that comes before in a chat; empty: the newest"""
    first: bool = False
    """this edits the first question of a chat: there is no turn before"""
    models: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    system: str = ""
    agreed: bool = False
    """whether the visitor has accepted the terms"""


class Arena:
    """The actions over the database and the models."""

    def __init__(
        self,
        page: PageConfig,
        database: Database,
        runner: Runner,
        models: Models,
        moderator: Moderator,
    ) -> None:
        self._page, self._database, self._runner = page, database, runner
        self._models, self._moderator = models, moderator
        self._random = random.SystemRandom()

    async def start(self, asker: Asker) -> Reply:
        """What a page needs when it opens."""
        up = await self._models.up()
        agreed = await asyncio.to_thread(self._has_agreed, asker)
        return {
            "title": self._page.title,
            "examples": list(self._page.examples),
            "terms": self._page.terms,
            "agreed": agreed,
            "visitor": asker.visitor_id,
            "models": [{"name": m.name, "max_tokens": m.max_tokens} for m in up],
            "refusal": self._models.refusal,
            "cards": [self._models.card(m.name) for m in up],
            "sources": list(self._page.sources),
            "max_input_chars": self._page.max_input_chars,
            "default_max_tokens": default_max_tokens(up),
        }

    async def history(self, asker: Asker, before_s: float) -> Reply:
        """What the visitor asked before that, some at a time."""

        def read() -> Reply:
            with self._database.read() as session:
                return views.history(session, asker.visitor_id, before_s)

        return await asyncio.to_thread(read)

    async def ask(self, asker: Asker, question: Question) -> Reply:
        text = self._checked(question)
        known = await asyncio.to_thread(self._admit, asker, question)
        turn_ids, view = known or await self._new(asker, question, text)
        for turn_id in turn_ids:
            await self._runner.begin(turn_id)
        return view

    async def _new(self, asker: Asker, question: Question, text: str) -> tuple[list[str], Reply]:
        if reason := await self._reason(f"{question.system}\n{text}".strip()):
            await asyncio.to_thread(self._keep_blocked, asker, question, reason)
            raise Refusal(QUESTION_BLOCKED)
        up = {model.name: model for model in await self._models.up()}
        return await asyncio.to_thread(self._store, asker, question, text, up)

    async def _reason(self, text: str) -> str:
        try:
            return await self._moderator.reason(text)
        except UnreadError as error:
            raise Refusal(QUESTION_UNREAD) from error

    async def stop(self, asker: Asker, turns: Sequence[str]) -> Reply:
        for turn_id in await asyncio.to_thread(self.own_turns, asker, turns):
            await self._runner.stop(turn_id)
        return {}

    async def retry(self, asker: Asker, turn: str) -> Reply:
        """Ask the model again where it failed or was stopped."""
        view = await asyncio.to_thread(self._reopen, asker, turn)
        await self._runner.begin(turn)
        return view

    async def vote(self, asker: Asker, battle: str, verdict: str) -> Reply:
        return await asyncio.to_thread(self._vote, asker, battle, verdict)

    async def open(self, asker: Asker, id: str) -> Reply:
        return await asyncio.to_thread(self._view, asker, id)

    async def share(self, asker: Asker, id: str, turn: str) -> Reply:
        """A new link that ends with `turn`; empty: the link is gone."""

        def write() -> str:
            with self._database.write() as session:
                return talks.share(session, asker.visitor_id, id, turn or None)

        return {"token": await asyncio.to_thread(write)}

    async def delete(self, asker: Asker, id: str) -> Reply:
        return await asyncio.to_thread(self._delete, asker, id)

    def own_turns(self, asker: Asker, turn_ids: Sequence[object]) -> list[str]:
        """Those that are the visitor's own; a stranger's answers are nobody's business."""
        known = [t for t in turn_ids if isinstance(t, str) and _TURN_ID.fullmatch(t)]
        with self._database.read() as session:
            mine = sa.select(Turn.id).where(
                Turn.id.in_(known[:_MAX_FOLLOWED]), Turn.visitor_id == asker.visitor_id
            )
            return list(session.scalars(mine))

    # Below: what runs in a thread, one transaction each.

    def _checked(self, question: Question) -> str:
        text = question.text.strip()
        if not _TURN_ID.fullmatch(question.id) or question.kind not in (
            "chat", "battle", "side_by_side",
        ):  # fmt: skip
            raise Refusal("The page sent something else than a question. Reload it.")
        if not text:
            raise Refusal("Type a question first.")
        if len(text) > self._page.max_input_chars:
            raise Refusal(
                f"This question has {len(text):,} characters; "
                f"the page takes {self._page.max_input_chars:,}."
            )
        if len(question.system) > _MAX_SYSTEM_CHARS:
            raise Refusal(f"The system message may have {_MAX_SYSTEM_CHARS:,} characters.")
        return text

    def _admit(self, asker: Asker, question: Question) -> tuple[list[str], Reply] | None:
        """Counts a question before moderation, which costs, whatever becomes of it later.

        One that came before is what it was, whatever its text is now.
        """
        with self._database.write() as session:
            visitor = talks.known_visitor(session, asker.visitor_id)
            known = session.get(Turn, question.id)
            if known is not None:
                return self._known(session, asker, known)
            self._agree(visitor, question)
            limits.count_answers(session, asker, self._page.limits, _turn_ids(question))
        return None

    def _store(
        self, asker: Asker, question: Question, text: str, up: Mapping[str, ModelUp]
    ) -> tuple[list[str], Reply]:
        with self._database.write() as session:
            talks.known_visitor(session, asker.visitor_id)
            known = session.get(Turn, question.id)
            if known is not None:
                return self._known(session, asker, known)
            # Those that were admitted meanwhile are on their way too.
            limits.check_running(session, asker, self._page.limits, len(_turn_ids(question)))
            if question.kind == "chat":
                return self._store_chat(session, asker, question, text, up)
            return self._store_battle(session, asker, question, text, up)

    def _known(self, session: Session, asker: Asker, turn: Turn) -> tuple[list[str], Reply]:
        """The question came before: its answer was lost on the way to the page."""
        if turn.error == QUESTION_BLOCKED:
            raise Refusal(QUESTION_BLOCKED)
        conversation = talks.own_conversation(session, asker.visitor_id, turn.conversation_id)
        ids = [turn.id, talks.twin_id(turn.id)] if conversation.battle_id else [turn.id]
        return ids, views.of_conversation(session, conversation)

    def _agree(self, visitor: Visitor, question: Question) -> None:
        has_agreed = question.agreed or visitor.consented_s is not None
        if self._page.terms and not has_agreed:
            raise Refusal("Read the terms and agree to them first.")
        if question.agreed and visitor.consented_s is None:
            visitor.consented_s = now_s()

    def _store_chat(
        self,
        session: Session,
        asker: Asker,
        question: Question,
        text: str,
        up: Mapping[str, ModelUp],
    ) -> tuple[list[str], Reply]:
        if question.to:
            conversation = talks.own_conversation(session, asker.visitor_id, question.to)
            if conversation.battle_id:
                raise Refusal(talks.GONE)
            if conversation.model not in up:
                raise Refusal(_NOT_UP)
            conversation.settings = _settings(question, [up[conversation.model]])
        else:
            chosen = [up[name] for name in question.models[:1] if name in up]
            if not chosen:
                raise Refusal(_NOT_UP)
            self._first_shown(session, [chosen[0].name])
            conversation = talks.new_conversation(
                session, asker, "chat", chosen[0].name, _settings(question, chosen), text
            )
        turns = talks.turns_of(session, conversation.id)
        parent_id = None if question.first else self._parent(turns, question.parent)
        self._check_length(talks.branch(turns, parent_id))
        turn = talks.add_turn(session, asker, conversation, question.id, parent_id, text, {})
        return [turn.id], views.of_conversation(session, conversation)

    def _parent(self, turns: Sequence[Turn], wanted: str) -> str | None:
        ids = [turn.id for turn in turns]
        if wanted and wanted not in ids:
            raise Refusal(talks.GONE)
        return wanted or (ids[-1] if ids else None)

    def _check_length(self, path: Sequence[Turn]) -> None:
        if len(path) >= self._page.max_turns:
            raise Refusal(f"This has reached {self._page.max_turns} turns. Begin a new one.")

    def _store_battle(
        self,
        session: Session,
        asker: Asker,
        question: Question,
        text: str,
        up: Mapping[str, ModelUp],
    ) -> tuple[list[str], Reply]:
        if question.to:
            battle = talks.own_battle(session, asker.visitor_id, question.to)
            if talks.has_vote(session, battle.id):
                raise Refusal("This battle has its vote. Begin the next one.")
            both = talks.sides(session, battle.id)
            if not battle.blind:
                self._change_settings(question, both, up)
        else:
            blind = question.kind == "battle"
            names = self._pair(session, up) if blind else _picked(question.models, up)
            chosen = [up[name] for name in names]
            self._first_shown(session, names)
            battle, both = talks.new_battle(
                session, asker, names, blind, _settings(question, chosen), text
            )
        turn_ids = _turn_ids(question)
        for conversation, turn_id in zip(both, turn_ids, strict=True):
            turns = talks.turns_of(session, conversation.id)
            self._check_length(turns)
            if turns and turns[-1].status in talks.OPEN:
                raise Refusal("Wait until both answers are there, or stop them.")
            parent_id = turns[-1].id if turns else None
            talks.add_turn(session, asker, conversation, turn_id, parent_id, text, {})
        return turn_ids, views.of_battle(session, battle)

    def _change_settings(
        self, question: Question, both: Sequence[Conversation], up: Mapping[str, ModelUp]
    ) -> None:
        """As a chat's, from the next answers on."""
        if any(conversation.model not in up for conversation in both):
            raise Refusal(_NOT_UP)
        for conversation in both:
            conversation.settings = _settings(question, [up[one.model] for one in both])

    def _pair(self, session: Session, up: Mapping[str, ModelUp]) -> tuple[str, str]:
        query = sa.select(Battle.left_model, Battle.right_model, sa.func.count()).where(
            Battle.blind
        )
        rows = session.execute(query.group_by(Battle.left_model, Battle.right_model))
        counts = Counter({(left, right): count for left, right, count in rows})
        return draw_pair(list(up), self._page.battle_weights, counts, self._random)

    def _first_shown(self, session: Session, names: Sequence[str]) -> None:
        """Every model that was ever shown stands in the log."""
        shown = {entry.body for entry in log.entries(session, "model")}
        for name in names:
            if log.canonical({"model": name}) not in shown:
                log.append(self._database, session, "model", {"model": name})

    def _keep_blocked(self, asker: Asker, question: Question, reason: str) -> None:
        """A blocked question is kept with its reason; no model hears of it."""
        with self._database.write() as session:
            talks.known_visitor(session, asker.visitor_id)
            if session.get(Turn, question.id) is not None:
                return
            conversation = talks.new_conversation(
                session, asker, "chat", "", {"system": question.system}, "Blocked"
            )
            turn = talks.add_turn(
                session, asker, conversation, question.id, None, question.text.strip(),
                {"blocked": reason},
            )  # fmt: skip
            turn.status, turn.error = "blocked", QUESTION_BLOCKED

    def _reopen(self, asker: Asker, turn_id: str) -> Reply:
        with self._database.write() as session:
            talks.known_visitor(session, asker.visitor_id)
            turn = session.get(Turn, turn_id)
            if turn is None or turn.visitor_id != asker.visitor_id:
                raise Refusal(talks.GONE)
            if turn.status not in ("failed", "stopped"):
                raise Refusal("There is nothing to try again here.")
            conversation = session.get_one(Conversation, turn.conversation_id)
            if conversation.battle_id and talks.has_vote(session, conversation.battle_id):
                raise Refusal("This battle has its vote. Begin the next one.")
            limits.count_answers(session, asker, self._page.limits, [turn_id])
            turn.status, turn.answer, turn.error = "waiting", "", ""
            turn.owner, turn.last_event = "", ""
            return views.of_conversation(session, conversation)

    def _vote(self, asker: Asker, battle_id: str, verdict: str) -> Reply:
        votes.cast_vote(self._database, asker, battle_id, verdict, self._page.limits)
        return self._view(asker, battle_id)

    def _view(self, asker: Asker, id: str) -> Reply:
        with self._database.read() as session:
            battle = session.get(Battle, id)
            if battle is not None and battle.visitor_id == asker.visitor_id:
                return views.of_battle(session, battle)
            conversation = talks.own_conversation(session, asker.visitor_id, id)
            return views.of_conversation(session, conversation)

    def _delete(self, asker: Asker, id: str) -> Reply:
        with self._database.write() as session:
            battle = session.get(Battle, id)
            if battle is not None and battle.visitor_id == asker.visitor_id:
                ids = [side.id for side in talks.sides(session, id)]
            else:
                found = talks.own_conversation(session, asker.visitor_id, id)
                both = talks.sides(session, found.battle_id) if found.battle_id else [found]
                ids = [one.id for one in both]
            talks.delete_conversations(session, ids)
        return {}

    def _has_agreed(self, asker: Asker) -> bool:
        with self._database.read() as session:
            visitor = session.get(Visitor, asker.visitor_id)
            return visitor is not None and visitor.consented_s is not None


def _turn_ids(question: Question) -> list[str]:
    """Of the answers that it asks for."""
    return [question.id, *([] if question.kind == "chat" else [talks.twin_id(question.id)])]


def _picked(names: Sequence[str], up: Mapping[str, ModelUp]) -> list[str]:
    if len(names) != 2 or any(name not in up for name in names):
        raise Refusal("Choose two models that are up.")
    return list(names)


def _settings(question: Question, models: Sequence[ModelUp]) -> dict[str, object]:
    """The visitor's parameters, within what the API takes of these models."""
    longest = min(model.max_tokens for model in models)
    wanted = question.max_tokens or default_max_tokens(models)
    settings: dict[str, object] = {"max_tokens": max(1, min(wanted, longest))}
    if question.temperature is not None:
        settings["temperature"] = min(2.0, max(0.0, question.temperature))
    if question.top_p is not None:
        settings["top_p"] = min(1.0, max(0.01, question.top_p))
    if question.system:
        settings["system"] = question.system
    return settings
