"""How firm a ranking is: between every two neighbours, what would turn their order.

How many questions would settle it at 95 %, and how few judgments, dropped or turned round, would
undo it (the question of arXiv:2508.11847). The few are chosen by their influence on the gap, and a
new fit without them gives their number. So it is reached, if perhaps not the very smallest.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from apps.common import ratings
from apps.eval.figures.models import Difference, RankStep, RatingRow, ScoreRow
from apps.eval.scores.judgments import Contest, Judgment, scale_of
from apps.eval.scores.pairs import question_means
from apps.eval.scores.statistics import (
    ROUNDING,
    Floats,
    Resampling,
    mean_interval,
    questions_needed,
)

Ints = ratings.Ints
MOST_NAMED = 12
# Keeps a fit finite that has lost a model's last win.
REFIT_PRIOR_TIES = 1e-3


def rating_steps(
    held: Sequence[Contest], rows: Sequence[RatingRow], resampling: Resampling
) -> tuple[RankStep, ...]:
    """One step between every two neighbours of the ratings."""
    known = [contest for contest in held if contest.outcome is not None]
    battles = ratings.Battles.of(
        (*contest.models, contest.outcome or 0.0, contest.question_id) for contest in known
    )
    return tuple(
        _rating_step(known, battles, above.model, below.model, resampling)
        for above, below in pairwise(rows)
    )


def _rating_step(
    known: Sequence[Contest],
    battles: ratings.Battles,
    above: str,
    below: str,
    resampling: Resampling,
) -> RankStep:
    places = (battles.models.index(above), battles.models.index(below))
    drop_N, flip_N = _influences(battles, *places)
    keep_N = np.ones(len(known))
    dropped = _fewest(drop_N, lambda chosen: _gap_without(battles, places, keep_N, chosen))
    flipped = _fewest(flip_N, lambda chosen: _gap_flipped(battles, places, chosen))
    direct = {
        question_id: outcome - 0.5
        for question_id, outcome in _outcomes_between(known, above, below).items()
    }
    named = np.argsort(drop_N, kind="stable")[: min(dropped or 0, MOST_NAMED)]
    return RankStep(
        above=above,
        below=below,
        between=_difference(direct, 0.5, resampling),
        judgments=len(known),
        dropped=dropped,
        flipped=flipped,
        questions=tuple(dict.fromkeys(known[int(place)].question_id for place in named)),
    )


def _outcomes_between(known: Sequence[Contest], above: str, below: str) -> dict[str, float]:
    """{question: share that `above` won} of the contests between two models."""
    turned = [
        replace(contest, models=(above, below), outcome=1.0 - (contest.outcome or 0.0))
        for contest in known
        if contest.models == (below, above)
    ]
    straight = [contest for contest in known if contest.models == (above, below)]
    return question_means([*straight, *turned])


def _difference(
    differences: Mapping[str, float], most: float, resampling: Resampling
) -> Difference | None:
    """Mean difference over questions with its interval, and the questions that would settle it."""
    if not differences:
        return None
    low, high = mean_interval(
        {question: [value] for question, value in differences.items()}, (-most, most), resampling
    )
    values = np.array([*differences.values()])
    return Difference(
        difference=float(values.mean()),
        low=low,
        high=high,
        n=len(differences),
        questions_needed=questions_needed(values, most),
    )


def _influences(battles: ratings.Battles, above: int, below: int) -> tuple[Floats, Floats]:
    """First-order change of the gap between two models when a battle is dropped, or turned round.

    The gap's gradient in one battle's outcome is (b_first - b_second), where b is the difference of
    two rows of the inverse information; what is dropped takes its residual with it.
    """
    wins_MM = ratings.win_matrix(battles)
    beta_M = ratings.bradley_terry(wins_MM, REFIT_PRIOR_TIES)
    p_MM = 1.0 / (1.0 + np.exp(beta_M[None, :] - beta_M[:, None]))
    curvature_MM = (wins_MM + wins_MM.T) * p_MM * (1.0 - p_MM)
    inverse_MM = np.linalg.pinv(np.diag(curvature_MM.sum(1)) - curvature_MM, hermitian=True)
    b_M = inverse_MM[above] - inverse_MM[below]
    gradient_N = b_M[battles.first_N] - b_M[battles.second_N]
    residual_N = battles.outcome_N - p_MM[battles.first_N, battles.second_N]
    return -gradient_N * residual_N, gradient_N * (1.0 - 2.0 * battles.outcome_N)


def _fewest(influence_N: Floats, gap_after: Callable[[Ints], float]) -> int | None:
    """How many of the most influential battles turn the gap; None if all together do not.

    Halving: with 80 battles that help, the middle 40 are tried, then 20 or 60, about 7 fits.
    """
    order = np.argsort(influence_N, kind="stable")
    most = int((influence_N < 0).sum())
    if not most or gap_after(order[:most]) > 0:
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if gap_after(order[:middle]) <= 0 else (middle, high)
    return high


def _gap_without(
    battles: ratings.Battles, places: tuple[int, int], keep_N: Floats, chosen: Ints
) -> float:
    weight_N = keep_N.copy()
    weight_N[chosen] = 0.0
    return _gap(ratings.win_matrix(battles, weight_N), places)


def _gap_flipped(battles: ratings.Battles, places: tuple[int, int], chosen: Ints) -> float:
    outcome_N = battles.outcome_N.copy()
    outcome_N[chosen] = 1.0 - outcome_N[chosen]
    return _gap(ratings.win_matrix(replace(battles, outcome_N=outcome_N)), places)


def _gap(wins_MM: Floats, places: tuple[int, int]) -> float:
    beta_M = ratings.bradley_terry(wins_MM, REFIT_PRIOR_TIES)
    return float(beta_M[places[0]] - beta_M[places[1]])


def score_steps(
    judgments: Sequence[Judgment], rows: Mapping[str, ScoreRow], resampling: Resampling
) -> tuple[RankStep, ...]:
    """The same for answers that were scored alone: neighbours by mean, question by question."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in judgments:
        if item.scores and len(item.models) == 1:
            scores[item.models[0]][item.question_id].append(item.scores[0])
    if not scores:
        return ()
    low, high = scale_of(judgments)
    order = sorted(scores, key=lambda name: -(rows[name].mean or 0.0))
    return tuple(
        _score_step(above, below, scores[above], scores[below], high - low, resampling)
        for above, below in pairwise(order)
    )


def _score_step(
    above: str,
    below: str,
    ours: Mapping[str, Sequence[float]],
    theirs: Mapping[str, Sequence[float]],
    most: float,
    resampling: Resampling,
) -> RankStep:
    differences = {
        question: float(np.mean(ours[question]) - np.mean(theirs[question]))
        for question in ours
        if question in theirs
    }
    order = sorted(differences, key=lambda question: -differences[question])
    left = np.cumsum([differences[question] for question in reversed(order)])[::-1]
    # Without the k questions that speak most for the first: the sum of the others.
    turning = [k for k in range(1, len(order)) if left[k] <= ROUNDING * most]
    dropped = turning[0] if turning else None
    return RankStep(
        above=above,
        below=below,
        between=_difference(differences, most, resampling),
        judgments=len(differences),
        dropped=dropped,
        flipped=None,
        questions=tuple(order[: min(dropped or 0, MOST_NAMED)]),
    )
