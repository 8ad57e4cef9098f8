"""Applies the rules to the votes in the database; every change stands in the log."""

from collections import defaultdict

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.serve.page.arena import rules
from apps.serve.page.store import log
from apps.serve.page.store.database import Database
from apps.serve.page.store.tables import Battle, Conversation, Turn, Vote
from apps.serve.page.store.votes import OUTCOMES, SAID_AT_ONCE, votes_with_battles


def apply_rules(database: Database) -> int:
    """How many votes changed between counted and left out."""
    with database.read() as session:
        votes = _ruled_votes(session)
        drawn = _drawn(session)
    reasons = rules.left_out(votes, drawn)
    changed = 0
    with database.write() as session:
        for vote in session.scalars(sa.select(Vote).where(Vote.left_out_by.not_in(SAID_AT_ONCE))):
            now = reasons.get(vote.battle_id, "")
            if now != vote.left_out_by:
                vote.left_out_by = now
                body = {"battle": vote.battle_id, "left_out_by": now}
                log.append(database, session, "left_out", body)
                changed += 1
    return changed


def _ruled_votes(session: Session) -> list[rules.RuledVote]:
    return [
        rules.RuledVote(
            battle_id=vote.battle_id,
            visitor_id=vote.visitor_id,
            address=vote.address,
            created_s=vote.created_s,
            left=battle.left_model,
            right=battle.right_model,
            outcome=OUTCOMES[vote.verdict],
        )
        for vote, battle in votes_with_battles(session)
        if vote.left_out_by not in SAID_AT_ONCE
    ]


def _drawn(session: Session) -> dict[str, list[tuple[str, str]]]:
    """The pairs of battles that their visitor could vote on with a vote that rules look at.

    One that he stopped or has deleted counts: he may have passed it by. One in which a model only
    failed does not.
    """
    query = sa.select(Battle.visitor_id, Battle.left_model, Battle.right_model)
    query = query.outerjoin(Vote, Vote.battle_id == Battle.id).where(
        Battle.blind,
        Battle.left_model != Battle.right_model,
        sa.or_(Vote.battle_id.is_not(None), Battle.id.not_in(_without_answers())),
        sa.or_(Vote.battle_id.is_(None), Vote.left_out_by.not_in(SAID_AT_ONCE)),
    )
    drawn: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for visitor_id, left, right in session.execute(query):
        drawn[visitor_id].append((left, right))
    return drawn


def _without_answers() -> sa.Select[str | None]:
    """Battles that have a side without any answer to judge."""
    judged = sa.select(Turn.conversation_id).where(Turn.status.in_(("done", "stopped")))
    return sa.select(Conversation.battle_id).where(
        Conversation.battle_id.is_not(None), Conversation.id.not_in(judged)
    )
