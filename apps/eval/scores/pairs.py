"""Models against each other: wins, ties and losses, totals of scores, ratings.

Win, tie and loss of a question are taken over judges, repeats and turns together: the mean outcome
above, at or below one half.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from apps.common import ratings
from apps.eval.figures.models import (
    Consistency,
    PairRow,
    Preference,
    RatingRow,
    RatingTable,
    ScoreTotals,
    WinRate,
    WinTieLoss,
)
from apps.eval.scores.judgments import Contest, Judgment, scale_of
from apps.eval.scores.statistics import Resampling, mean_interval, ratio_interval


def pair_table(
    held: Sequence[Contest],
    judgments: Sequence[Judgment],
    category: Mapping[str, str],
    resampling: Resampling,
) -> tuple[PairRow, ...]:
    """Win, tie and loss of every pair, with the totals of scores where there are any."""
    by_pair: dict[tuple[str, ...], tuple[list[Contest], list[Judgment]]] = {
        models: ([], []) for models in dict.fromkeys(contest.models for contest in held)
    }
    for contest in held:
        by_pair[contest.models][0].append(contest)
    for item in judgments:
        if item.models in by_pair:
            by_pair[item.models][1].append(item)
    return tuple(_pair_row(mine, scored, category, resampling) for mine, scored in by_pair.values())


def _pair_row(
    held: Sequence[Contest],
    judgments: Sequence[Judgment],
    category: Mapping[str, str],
    resampling: Resampling,
) -> PairRow:
    means = question_means(held)
    decided = [contest for contest in held if contest.is_consistent is not None]
    return PairRow(
        models=held[0].models,
        n=len(means),
        total=len({contest.question_id for contest in held}),
        counts=_win_tie_loss(means.values()),
        per_category={
            name: _win_tie_loss(v for q, v in means.items() if category[q] == name)
            for name in dict.fromkeys(category[q] for q in means)
        },
        consistency=Consistency(
            consistent=sum(bool(contest.is_consistent) for contest in decided), total=len(decided)
        )
        if decided
        else None,
        rate=_win_rate(means, resampling) if means else None,
        score_totals=_totals(judgments, resampling),
    )


def question_means(held: Iterable[Contest]) -> dict[str, float]:
    """{question_id: mean outcome over judges, repeats and turns} of one pair's contests."""
    by_question: dict[str, list[float]] = defaultdict(list)
    for contest in held:
        if contest.outcome is not None:
            by_question[contest.question_id].append(contest.outcome)
    return {question_id: float(np.mean(mine)) for question_id, mine in by_question.items()}


def _win_rate(means: Mapping[str, float], resampling: Resampling) -> WinRate:
    low, high = mean_interval({q: [value] for q, value in means.items()}, (0.0, 1.0), resampling)
    return WinRate(win_rate=float(np.mean([*means.values()])), low=low, high=high)


def _win_tie_loss(outcomes: Iterable[float]) -> WinTieLoss:
    values = list(outcomes)
    return WinTieLoss(
        win=sum(value > 0.5 for value in values),
        tie=sum(value == 0.5 for value in values),
        loss=sum(value < 0.5 for value in values),
    )


def _totals(judgments: Sequence[Judgment], resampling: Resampling) -> ScoreTotals | None:
    """Sums of both models' scores over questions, repeats and judges averaged first."""
    by_question: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for item in judgments:
        if item.scores:
            by_question[item.question_id].append(item.scores)
    if not by_question:
        return None
    means = np.array([np.mean(mine, axis=0) for mine in by_question.values()])
    first, second = (float(total) for total in means.sum(0))
    low, high = ratio_interval(means[:, 0], means[:, 1], scale_of(judgments), resampling)
    return ScoreTotals(
        first=first,
        second=second,
        ratio=first / second if second else None,
        low=low,
        high=high,
    )


def rating_table(held: Sequence[Contest], resampling: Resampling) -> RatingTable:
    """Bradley-Terry with intervals, online Elo beside it, and the matrix of win rates."""
    battles = ratings.Battles.of(
        (*contest.models, contest.outcome, contest.question_id)
        for contest in held
        if contest.outcome is not None
    )
    elo = dict(zip(battles.models, ratings.elo(battles), strict=True))
    wins_MM = ratings.win_matrix(battles)
    games_MM = wins_MM + wins_MM.T
    rows = ratings.leaderboard(battles, min(resampling.num_resamples, 500), resampling.seed)
    return RatingTable(
        models=tuple(RatingRow(**asdict(row), elo=float(elo[row.model])) for row in rows),
        is_connected=ratings.is_connected(wins_MM) if battles.models else False,
        win_rates={
            first: {
                second: float(wins_MM[i, j] / games_MM[i, j])
                for j, second in enumerate(battles.models)
                if games_MM[i, j]
            }
            for i, first in enumerate(battles.models)
        },
    )


def preference(pairs: Sequence[PairRow]) -> Preference | None:
    """Whom the judge prefers, when there are two models; None otherwise or on equal wins."""
    if len(pairs) != 1 or pairs[0].counts.win == pairs[0].counts.loss:
        return None
    pair, counts = pairs[0], pairs[0].counts
    first_leads = counts.win > counts.loss
    return Preference(
        preferred=pair.models[0 if first_leads else 1],
        over=pair.models[1 if first_leads else 0],
        win=max(counts.win, counts.loss),
        tie=counts.tie,
        loss=min(counts.win, counts.loss),
        n=pair.n,
        total=pair.total,
    )
