"""Conversations, battles and their turns: how they begin, grow, are read and are deleted."""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.serve.page.store.database import INSERTS, new_id, now_s
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.tables import Battle, Conversation, Kind, Turn, Visitor, Vote

ANSWERED = ("done", "stopped")
OPEN = ("waiting", "running")
SIDES = ("left", "right")
GONE = "This conversation is not here any more. Begin a new one."


@dataclass(frozen=True, kw_only=True, slots=True)
class Asker:
    """Who asks, and from where."""

    visitor_id: str
    address: str


def known_visitor(session: Session, visitor_id: str) -> Visitor:
    """The visitor's row; made at the first thing that is kept.

    Until the transaction ends, no other of the same visitor gets past here: what is sent twice at
    the same moment is stored once, and none of a visitor's limits is passed by asking in parallel.
    """
    insert = INSERTS[session.get_bind().dialect.name]
    row = insert(Visitor).values(id=visitor_id, created_s=now_s(), consented_s=None)
    session.execute(row.on_conflict_do_nothing())
    return session.get_one(Visitor, visitor_id, with_for_update=True)


def new_conversation(
    session: Session,
    asker: Asker,
    kind: Kind,
    model: str,
    settings: Mapping[str, object],
    title: str,
    battle: Battle | None = None,
    side: str | None = None,
) -> Conversation:
    conversation = Conversation(
        id=new_id(),
        visitor_id=asker.visitor_id,
        battle_id=battle.id if battle else None,
        side=side,
        created_s=now_s(),
        kind=kind,
        model=model,
        title=" ".join(title.split())[:120],
        settings=dict(settings),
        share_token=None,
        shared_turn_id=None,
    )
    session.add(conversation)
    session.flush()
    return conversation


def new_battle(
    session: Session,
    asker: Asker,
    models: Sequence[str],
    blind: bool,
    settings: Mapping[str, object],
    title: str,
) -> tuple[Battle, list[Conversation]]:
    battle = Battle(
        id=new_id(),
        visitor_id=asker.visitor_id,
        created_s=now_s(),
        left_model=models[0],
        right_model=models[1],
        blind=blind,
    )
    session.add(battle)
    session.flush()
    kind: Kind = "battle" if blind else "side_by_side"
    return battle, [
        new_conversation(session, asker, kind, model, settings, title, battle, side)
        for side, model in zip(SIDES, models, strict=True)
    ]


def add_turn(
    session: Session,
    asker: Asker,
    conversation: Conversation,
    turn_id: str,
    parent_id: str | None,
    question: str,
    flags: Mapping[str, object],
) -> Turn:
    """The question, stored before any model hears of it."""
    turn = Turn(
        id=turn_id,
        conversation_id=conversation.id,
        parent_id=parent_id,
        visitor_id=asker.visitor_id,
        created_s=now_s(),
        system=str(conversation.settings.get("system") or ""),
        question=question,
        answer="",
        status="waiting",
        finish_reason="",
        error="",
        flags=dict(flags),
        owner="",
        beat_s=0.0,
        watched_s=now_s(),
        last_event="",
    )
    session.add(turn)
    session.flush()
    return turn


def twin_id(turn_id: str) -> str:
    """Id of the right side's turn, from that of the left."""
    return hashlib.sha256(f"right:{turn_id}".encode()).hexdigest()[:32]


def own_conversation(session: Session, visitor_id: str, conversation_id: str) -> Conversation:
    found = session.get(Conversation, conversation_id)
    if found is None or found.visitor_id != visitor_id:
        raise Refusal(GONE)
    return found


def own_battle(session: Session, visitor_id: str, battle_id: str) -> Battle:
    found = session.get(Battle, battle_id)
    if found is None or found.visitor_id != visitor_id:
        raise Refusal(GONE)
    return found


def sides(session: Session, battle_id: str) -> list[Conversation]:
    """The two conversations, left first."""
    query = sa.select(Conversation).where(Conversation.battle_id == battle_id)
    return sorted(session.scalars(query), key=lambda c: SIDES.index(c.side or "left"))


def turns_of(session: Session, conversation_id: str) -> list[Turn]:
    """All of them, the branches too, in the order they were asked."""
    query = sa.select(Turn).where(Turn.conversation_id == conversation_id)
    return list(session.scalars(query.order_by(Turn.created_s, Turn.id)))


def branch(turns: Sequence[Turn], last_id: str | None) -> list[Turn]:
    """The turns that lead to `last_id`, first to last."""
    by_id = {turn.id: turn for turn in turns}
    path: list[Turn] = []
    while last_id is not None and (turn := by_id.pop(last_id, None)):
        path.append(turn)
        last_id = turn.parent_id
    return path[::-1]


def messages_before(session: Session, turn: Turn) -> list[dict[str, str]]:
    """What the model is sent: the answered turns of the branch, then the question."""
    path = branch(turns_of(session, turn.conversation_id), turn.parent_id)
    messages = [{"role": "system", "content": turn.system}] if turn.system else []
    for before in path:
        if before.status in ANSWERED and before.answer.strip():
            messages += [
                {"role": "user", "content": before.question},
                {"role": "assistant", "content": before.answer},
            ]
    return [*messages, {"role": "user", "content": turn.question}]


def share(session: Session, visitor_id: str, conversation_id: str, turn_id: str | None) -> str:
    """Token of a link that shows the branch up to `turn_id`; "" when it is None: no link any more.

    The left side of a battle carries the link of both.
    """
    conversation = own_conversation(session, visitor_id, conversation_id)
    if turn_id is not None and turn_id not in {t.id for t in turns_of(session, conversation_id)}:
        raise Refusal(GONE)
    conversation.shared_turn_id = turn_id
    conversation.share_token = secrets.token_urlsafe(32) if turn_id else None
    return conversation.share_token or ""


def delete_conversations(session: Session, conversation_ids: Sequence[str]) -> None:
    """With their turns; a battle's vote stays, without its texts."""
    session.execute(sa.delete(Turn).where(Turn.conversation_id.in_(conversation_ids)))
    session.execute(sa.delete(Conversation).where(Conversation.id.in_(conversation_ids)))


def has_vote(session: Session, battle_id: str) -> bool:
    return session.get(Vote, battle_id) is not None
