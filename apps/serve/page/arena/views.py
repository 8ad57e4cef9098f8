"""Battles and conversations as the page shows them; a blind battle has no names until its vote."""

from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.serve.page.arena.change import rating_changes
from apps.serve.page.render.markdown import blocks
from apps.serve.page.store.conversations import sides, turns_of
from apps.serve.page.store.tables import Battle, Conversation, Turn, Vote
from apps.serve.page.store.votes import SAID_AT_ONCE

HISTORY_PAGE = 60
"""conversations that are listed at a time"""


def of_conversation(session: Session, conversation: Conversation) -> dict[str, object]:
    """A chat; for one side of a battle: the battle."""
    if conversation.battle_id is not None:
        return of_battle(session, session.get_one(Battle, conversation.battle_id))
    return {
        "kind": "chat",
        "id": conversation.id,
        "model": conversation.model,
        "title": conversation.title,
        "settings": conversation.settings,
        "share_token": conversation.share_token or "",
        "turns": [of_turn(turn) for turn in turns_of(session, conversation.id)],
    }


def of_battle(session: Session, battle: Battle) -> dict[str, object]:
    vote = session.get(Vote, battle.id)
    both = sides(session, battle.id)
    view: dict[str, object] = {
        "kind": "battle" if battle.blind else "side_by_side",
        "id": battle.id,
        "title": both[0].title if both else "",
        "conversation": both[0].id if both else "",
        "share_token": (both[0].share_token or "") if both else "",
        "verdict": vote.verdict if vote else "",
        "sides": [[of_turn(turn) for turn in turns_of(session, side.id)] for side in both],
        "models": [],
    }
    if not battle.blind and both:
        view["settings"] = both[0].settings
    if vote or not battle.blind:
        view["models"] = [battle.left_model, battle.right_model]
    if vote:
        view["changes"] = [asdict(change) for change in rating_changes(session, battle, vote)]
        view["left_out_by"] = vote.left_out_by if vote.left_out_by in SAID_AT_ONCE else ""
    return view


def history(session: Session, visitor_id: str, before_s: float) -> dict[str, object]:
    """The visitor's conversations that began before that, newest first; a battle is one."""
    query = sa.select(Conversation).where(
        Conversation.visitor_id == visitor_id,
        sa.or_(Conversation.side.is_(None), Conversation.side == "left"),
        Conversation.model != "",
        Conversation.created_s < before_s,
    )
    found: Sequence[Conversation] = session.scalars(
        query.order_by(Conversation.created_s.desc()).limit(HISTORY_PAGE + 1)
    ).all()
    listed = [
        {
            "id": talk.battle_id or talk.id,
            "kind": talk.kind,
            "title": talk.title,
            "created_s": talk.created_s,
        }
        for talk in found[:HISTORY_PAGE]
    ]
    return {"history": listed, "has_more": len(found) > HISTORY_PAGE}


def of_turn(turn: Turn) -> dict[str, object]:
    return {
        "id": turn.id,
        "parent": turn.parent_id,
        "question": turn.question,
        "html": blocks(turn.answer),
        "status": turn.status,
        "error": turn.error,
    }
