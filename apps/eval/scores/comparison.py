"""Two runs side by side: what each model gained or lost, and which questions turned.

`report --previous FOLDER` compares the questions that both runs judged by one protocol. A pair's
question has turned when the other model wins it now. That of an answer scored alone has when its
mean moved by `SCORE_MOVE` points of 1 to 10, or by as large a share of another scale. Judges of
about GPT-4's size move by .2 between equal runs.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from apps.eval.figures.comparison import ModelChange, RunComparison, TurnedQuestion
from apps.eval.scores.judgments import Contest, Judgment, contests, points_of_scale
from apps.eval.scores.statistics import Resampling, mean_interval

SCORE_MOVE = 2.0
MOST_TURNED = 500

Place = tuple[str, tuple[str, ...]]
"""question and models: a pair with its outcome 0..1, or one model with its score"""


def compare_runs(
    now: Sequence[Judgment], before: Sequence[Judgment], resampling: Resampling
) -> RunComparison | None:
    """None where the two share no judged question."""
    ours, theirs = _values(now), _values(before)
    shared = [place for place in ours if place in theirs]
    if not shared:
        return None
    # Bounds of what can change, and the change of a score that counts as one.
    most, move = 1.0, 0.0
    if len(shared[0][1]) == 1:
        scored = [*now, *before]
        most, move = points_of_scale(scored, 9.0), points_of_scale(scored, SCORE_MOVE)
    turned = [place for place in shared if _has_turned(place, ours[place], theirs[place], move)]
    turned.sort(key=lambda place: -abs(ours[place] - theirs[place]))
    return RunComparison(
        n=len(shared),
        only_now=len(ours) - len(shared),
        only_before=len(theirs) - len(shared),
        judges_now=tuple(sorted({item.judge for item in now})),
        judges_before=tuple(sorted({item.judge for item in before})),
        models=_changes(shared, ours, theirs, most, resampling),
        num_turned=len(turned),
        turned=tuple(
            TurnedQuestion(
                question_id=question, models=models, before=theirs[question, models], now=value
            )
            for question, models in turned[:MOST_TURNED]
            for value in [ours[question, models]]
        ),
    )


def _values(judgments: Sequence[Judgment]) -> dict[Place, float]:
    """Mean outcome of every pair's question; without pairs, mean score of every answer."""
    judged = [item for item in judgments if item.kind == "contest"]
    values: dict[Place, list[float]] = defaultdict(list)
    held: Sequence[Contest] = contests(judged)
    for contest in held:
        if contest.outcome is not None:
            first, second = sorted(contest.models)
            is_turned = first != contest.models[0]
            outcome = 1.0 - contest.outcome if is_turned else contest.outcome
            values[contest.question_id, (first, second)].append(outcome)
    for item in judged:
        if not held and item.scores:
            values[item.question_id, item.models].append(item.scores[0])
    return {place: float(np.mean(mine)) for place, mine in values.items()}


def _has_turned(place: Place, now: float, before: float, move: float) -> bool:
    if len(place[1]) == 1:
        return abs(now - before) >= move * (1.0 - 1e-9)
    return (now - 0.5) * (before - 0.5) < 0


def _changes(
    shared: Sequence[Place],
    ours: Mapping[Place, float],
    theirs: Mapping[Place, float],
    most: float,
    resampling: Resampling,
) -> dict[str, ModelChange]:
    """Each model's mean then and now on the shared questions, and the change's interval."""
    values: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for question, models in shared:
        then, now = theirs[question, models], ours[question, models]
        values[models[0]][question].append((then, now))
        if len(models) == 2:
            values[models[1]][question].append((1.0 - then, 1.0 - now))
    return {
        model: _change(by_question, most, resampling)
        for model, by_question in sorted(values.items())
    }


def _change(
    by_question: Mapping[str, Sequence[tuple[float, float]]], most: float, resampling: Resampling
) -> ModelChange:
    moves = {q: [now - then for then, now in mine] for q, mine in by_question.items()}
    low, high = mean_interval(moves, (-most, most), resampling)
    both = np.array([pair for mine in by_question.values() for pair in mine])
    return ModelChange(
        before=float(both[:, 0].mean()),
        now=float(both[:, 1].mean()),
        low=low,
        high=high,
        n=len(by_question),
    )
