"""What one vote did to the ratings of its two models, for the card that follows it."""

from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.common import ratings
from apps.serve.page.store.tables import Battle, Vote
from apps.serve.page.store.votes import OUTCOMES


@dataclass(frozen=True, slots=True)
class RatingChange:
    """Of one model, on the leaderboard's scale."""

    rating: int
    change: int


def rating_changes(session: Session, battle: Battle, vote: Vote) -> list[RatingChange]:
    """Left, then right: all votes that count, with and without this one; [] where it does not."""
    if vote.left_out_by:
        return []
    query = (
        sa.select(Battle.left_model, Battle.right_model, Vote.verdict, sa.func.count())
        .join(Battle, Battle.id == Vote.battle_id)
        .where(Vote.left_out_by == "")
        .group_by(Battle.left_model, Battle.right_model, Vote.verdict)
    )
    rows = [(left, right, verdict, count) for left, right, verdict, count in session.execute(query)]
    names = sorted({name for left, right, _, _ in rows for name in (left, right)})
    wins_MM = np.zeros((len(names), len(names)))
    left, right = names.index(battle.left_model), names.index(battle.right_model)
    for one, other, verdict, count in rows:
        _add(wins_MM, names.index(one), names.index(other), verdict, count)
    before_MM = wins_MM.copy()
    _add(before_MM, left, right, vote.verdict, -1)
    # One prior on both sides: a change is the vote's, never that of a prior that fell away.
    change_M = _rated(wins_MM, _prior(before_MM)) - _rated(before_MM, _prior(before_MM))
    now_M = _rated(wins_MM, _prior(wins_MM))
    return [RatingChange(round(float(now_M[i])), round(float(change_M[i]))) for i in (left, right)]


def _add(wins_MM: ratings.Floats, left: int, right: int, verdict: str, count: int) -> None:
    wins_MM[left, right] += OUTCOMES[verdict] * count
    wins_MM[right, left] += (1 - OUTCOMES[verdict]) * count


def _prior(wins_MM: ratings.Floats) -> float:
    """As the leaderboard has it: a virtual tie for every pair while the wins connect too little."""
    return 0.0 if ratings.is_connected(wins_MM) else 1.0


def _rated(wins_MM: ratings.Floats, prior_ties: float) -> ratings.Floats:
    return ratings.to_elo(ratings.bradley_terry(wins_MM, prior_ties))
