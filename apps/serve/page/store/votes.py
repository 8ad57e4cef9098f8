"""Votes: a battle's id and a verdict, taken once, from its own visitor, when both answered."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.serve.page.config import PageLimits
from apps.serve.page.store import log
from apps.serve.page.store.conversations import Asker, own_battle, sides, turns_of
from apps.serve.page.store.database import Database, now_s
from apps.serve.page.store.limits import check_vote
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.tables import VERDICTS, Battle, Turn, Visitor, Vote

OUTCOMES = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
"""share of the win that the left model takes"""
NAMES_A_MODEL = "names_a_model"
NOT_BLIND = "not_blind"
SAID_AT_ONCE = (NOT_BLIND, NAMES_A_MODEL)
"""reasons that the visitor hears; whoever rigs learns nothing from the others"""


def cast_vote(
    database: Database, asker: Asker, battle_id: str, verdict: str, limits: PageLimits
) -> Vote:
    """The vote that the battle has from now on. Raises Refusal.

    Saying the same again is no error: an answer may be lost on its way to the page.
    """
    if verdict not in VERDICTS:
        raise Refusal("A vote says left, right, tie or both_bad.")
    with database.write() as session:
        session.get(Visitor, asker.visitor_id, with_for_update=True)  # one vote after the other
        battle = own_battle(session, asker.visitor_id, battle_id)
        kept = session.get(Vote, battle_id)
        if kept is not None:
            if kept.verdict == verdict:
                return kept
            raise Refusal("This battle has its vote already; the first one counts.")
        check_vote(session, asker, limits)
        last = last_turns(session, battle)
        _check_complete(battle, last)
        vote = Vote(
            battle_id=battle.id,
            created_s=now_s(),
            visitor_id=asker.visitor_id,
            address=asker.address,
            verdict=verdict,
            left_out_by=_left_out_by(session, battle),
        )
        session.add(vote)
        body = {
            "battle": battle.id,
            "models": [battle.left_model, battle.right_model],
            "verdict": verdict,
            "left_out_by": vote.left_out_by,
        }
        log.append(database, session, "vote", body)
    return vote


def last_turns(session: Session, battle: Battle) -> list[Turn | None]:
    """The newest turn of each side."""
    newest = [turns_of(session, side.id)[-1:] for side in sides(session, battle.id)]
    return [turns[0] if turns else None for turns in newest]


def is_complete(last: list[Turn | None]) -> bool:
    """Whether both sides answered the last question to its end."""
    return len(last) == 2 and all(t and t.status == "done" and t.answer.strip() for t in last)


def _check_complete(battle: Battle, last: list[Turn | None]) -> None:
    if battle.left_model == battle.right_model:
        raise Refusal("A vote needs answers of two different models.")
    if not is_complete(last):
        raise Refusal("A vote needs both answers to be complete. Wait for them, or ask again.")


def _left_out_by(session: Session, battle: Battle) -> str:
    if not battle.blind:
        return NOT_BLIND
    turns = [turn for side in sides(session, battle.id) for turn in turns_of(session, side.id)]
    return NAMES_A_MODEL if any(turn.flags.get(NAMES_A_MODEL) for turn in turns) else ""


def votes_with_battles(session: Session) -> list[tuple[Vote, Battle]]:
    """All votes in the order they came."""
    query = sa.select(Vote, Battle).join(Battle, Battle.id == Vote.battle_id)
    rows = session.execute(query.order_by(Vote.created_s, Vote.battle_id))
    return [(vote, battle) for vote, battle in rows]
