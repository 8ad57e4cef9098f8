"""Models against each other: wins, ties and losses, totals of scores, ratings.

Win, tie and loss of a question are taken over judges, repeats and turns together: the mean outcome
above, at or below one half.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from apps.common import ratings
from apps.eval.scores.judgments import Contest, Judgment
from apps.eval.scores.statistics import mean_interval, ratio_interval


def pair_table(
    held: Sequence[Contest],
    judgments: Sequence[Judgment],
    category: Mapping[str, str],
    num_resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Win, tie and loss of every pair, with the totals of scores where there are any."""
    return [
        _pair_row(
            models,
            [contest for contest in held if contest.models == models],
            [item for item in judgments if item.models == models],
            category,
            num_resamples,
            seed,
        )
        for models in dict.fromkeys(contest.models for contest in held)
    ]


def _pair_row(
    models: tuple[str, str],
    held: Sequence[Contest],
    judgments: Sequence[Judgment],
    category: Mapping[str, str],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    by_question: dict[str, list[float]] = defaultdict(list)
    for contest in held:
        if contest.outcome is not None:
            by_question[contest.question_id].append(contest.outcome)
    means = {question_id: float(np.mean(found)) for question_id, found in by_question.items()}
    decided = [contest for contest in held if contest.is_consistent is not None]
    row: dict[str, Any] = {
        "models": list(models),
        "n": len(means),
        "total": len({contest.question_id for contest in held}),
        **_win_tie_loss(means.values()),
        "per_category": {
            name: _win_tie_loss(v for q, v in means.items() if category[q] == name)
            for name in dict.fromkeys(category[q] for q in means)
        },
        "consistency": {
            "consistent": sum(bool(contest.is_consistent) for contest in decided),
            "total": len(decided),
        }
        if decided
        else None,
    }
    if means:
        row["win_rate"] = float(np.mean([*means.values()]))
        row["low"], row["high"] = mean_interval(
            {q: [v] for q, v in means.items()}, num_resamples, seed
        )
    totals = _totals(judgments, num_resamples, seed)
    return {**row, "score_totals": totals} if totals else row


def _win_tie_loss(outcomes: Any) -> dict[str, int]:
    values = list(outcomes)
    return {
        "win": sum(value > 0.5 for value in values),
        "tie": sum(value == 0.5 for value in values),
        "loss": sum(value < 0.5 for value in values),
    }


def _totals(judgments: Sequence[Judgment], num_resamples: int, seed: int) -> dict[str, Any] | None:
    """Sums of both models' scores over questions, repeats and judges averaged first."""
    by_question: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for item in judgments:
        if item.scores:
            by_question[item.question_id].append(item.scores)
    if not by_question:
        return None
    means = np.array([np.mean(found, axis=0) for found in by_question.values()])
    first, second = (float(total) for total in means.sum(0))
    low, high = ratio_interval(means[:, 0], means[:, 1], num_resamples, seed)
    return {
        "first": first,
        "second": second,
        "ratio": first / second if second else None,
        "low": low,
        "high": high,
    }


def rating_table(held: Sequence[Contest], num_resamples: int, seed: int) -> dict[str, Any]:
    """Bradley-Terry with intervals, online Elo beside it, and the matrix of win rates."""
    records = [
        (*contest.models, contest.outcome, contest.question_id)
        for contest in held
        if contest.outcome is not None
    ]
    battles = ratings.Battles.of(records)
    elo = dict(zip(battles.models, ratings.elo(battles), strict=True))
    wins_MM = ratings.win_matrix(battles)
    games_MM = wins_MM + wins_MM.T
    return {
        "models": [
            {**asdict(row), "elo": float(elo[row.model])}
            for row in ratings.leaderboard(battles, min(num_resamples, 500), seed)
        ],
        "is_connected": ratings.is_connected(wins_MM) if battles.models else False,
        "win_rates": {
            first: {
                second: float(wins_MM[i, j] / games_MM[i, j])
                for j, second in enumerate(battles.models)
                if games_MM[i, j]
            }
            for i, first in enumerate(battles.models)
        },
    }


def preference(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Whom the judge prefers, when there are two models; None otherwise or on equal wins."""
    if len(pairs) != 1 or pairs[0]["win"] == pairs[0]["loss"]:
        return None
    pair = pairs[0]
    first_leads = pair["win"] > pair["loss"]
    return {
        "preferred": pair["models"][0 if first_leads else 1],
        "over": pair["models"][1 if first_leads else 0],
        "win": max(pair["win"], pair["loss"]),
        "tie": pair["tie"],
        "loss": min(pair["win"], pair["loss"]),
        "n": pair["n"],
        "total": pair["total"],
    }
