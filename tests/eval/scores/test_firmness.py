"""How firm an order is: the questions that would settle it, the judgments that would turn it."""

import numpy as np
import pytest

from apps.common import ratings
from apps.eval.scores.firmness import rating_steps, score_steps
from apps.eval.scores.judgments import Contest
from apps.eval.scores.pairs import rating_table
from apps.eval.scores.protocol import mean_scores
from apps.eval.scores.statistics import Resampling, mean_interval, questions_needed
from tests.eval.scores.test_scores import judgment

FEW = Resampling(num_resamples=200)


def contest(outcome: float, place: int, models: tuple[str, str] = ("a", "b")) -> Contest:
    return Contest(
        question_id=f"q{place}",
        models=models,
        judge="j",
        repeat=0,
        kind="contest",
        outcome=outcome,
        is_consistent=None,
    )


def test_a_lead_of_six_falls_with_six_dropped_or_three_turned() -> None:
    held = [contest(1.0, i) for i in range(43)] + [contest(0.0, 43 + i) for i in range(37)]
    (step,) = rating_steps(held, rating_table(held, FEW).models, FEW)
    assert (step.above, step.below, step.judgments) == ("a", "b", 80)
    assert (step.dropped, step.flipped) == (6, 3)
    assert step.between is not None and step.between.difference == pytest.approx(3 / 80)
    assert step.between.low < 0 < step.between.high
    assert len(step.questions) == 6 and set(step.questions) <= {f"q{i}" for i in range(43)}


def test_what_is_named_turns_the_order_in_a_league() -> None:
    rng = np.random.default_rng(4)
    strength = np.array([0.0, 0.1, 0.5, 1.0])
    held = []
    for place in range(60):
        for i in range(4):
            for j in range(i):
                p = 1 / (1 + np.exp(strength[j] - strength[i]))
                held.append(contest(float(rng.random() < p), place, (f"m{i}", f"m{j}")))
    rows = rating_table(held, FEW).models
    for step in rating_steps(held, rows, FEW):
        assert step.flipped is not None and step.dropped is not None
        assert 0 < step.flipped <= step.dropped <= len(held)
    nearest = min(rating_steps(held, rows, FEW), key=lambda step: step.flipped or 999)
    assert nearest.flipped is not None and nearest.flipped < 20


def test_one_model_that_always_wins_is_not_turned_by_leaving_out() -> None:
    held = [contest(1.0, i) for i in range(10)]
    (step,) = rating_steps(held, rating_table(held, FEW).models, FEW)
    assert step.dropped is None or step.dropped == 10
    assert step.flipped == 5


def test_scores_alone_are_turned_by_their_strongest_questions() -> None:
    items = []
    for place, (ours, theirs) in enumerate([(9, 3), (5, 6), (5, 6), (7, 7)]):
        for name, score in (("a", ours), ("b", theirs)):
            fields = {"models": (name,), "scores": (float(score),), "status": "ok"}
            items.append(judgment(None, 0, f"q{place}", **fields))
    rows = mean_scores(items, {f"q{i}": "c" for i in range(4)}, FEW)
    (step,) = score_steps(items, rows, FEW)
    assert (step.above, step.dropped, step.questions, step.flipped) == ("a", 1, ("q0",), None)
    assert step.between is not None and step.between.difference == 1.0


def test_what_rounding_leaves_of_a_difference_turns_nobody() -> None:
    """Without q0 the two are even: .1 + .2 - .3 is no lead."""
    items = [
        judgment(None, 0, f"q{place}", models=(name,), scores=(score,), status="ok")
        for place, lead in enumerate([2.0, 0.1, 0.2, -0.3])
        for name, score in (("a", lead), ("b", 0.0))
    ]
    rows = mean_scores(items, {f"q{i}": "c" for i in range(4)}, FEW)
    (step,) = score_steps(items, rows, FEW)
    assert (step.above, step.dropped) == ("a", 1)


@pytest.mark.parametrize("p", [0.6, 0.7, 0.8])
def test_so_many_questions_do_tell_them_apart_four_times_in_five(p: float) -> None:
    rng = np.random.default_rng(6)
    many = (rng.random(100_000) < p) - 0.5
    needed = questions_needed(many, 0.5)
    assert needed is not None
    told = 0
    for trial in range(200):
        drawn = {str(i): [float(v)] for i, v in enumerate((rng.random(needed) < p) - 0.5)}
        low, _ = mean_interval(drawn, (-0.5, 0.5), Resampling(num_resamples=300, seed=trial))
        told += low > 0
    assert 0.68 <= told / 200 <= 0.92


def test_the_worked_example_and_no_difference() -> None:
    outcomes = np.array([0.5] * 6000 + [-0.5] * 4000)
    assert questions_needed(outcomes, 0.5) == pytest.approx(190, abs=2)
    assert questions_needed(np.array([0.5, -0.5]), 0.5) is None
    assert questions_needed(np.array([0.1, 0.2, -0.3]), 9.0) is None, "but for rounding"


def test_ratings_of_a_hundred_thousand_battles_are_the_same_for_one_cluster_or_many() -> None:
    rng = np.random.default_rng(5)
    first = rng.integers(50, size=100_000)
    second = (first + rng.integers(1, 50, size=100_000)) % 50
    battles = ratings.Battles(
        models=tuple(f"m{i:02}" for i in range(50)),
        first_N=first,
        second_N=second,
        outcome_N=rng.integers(0, 2, 100_000).astype(float),
        cluster_N=np.arange(100_000),
    )
    rows = ratings.leaderboard(battles, num_resamples=60)
    assert len(rows) == 50 and all(row.low <= row.rating <= row.high for row in rows)
    assert max(row.high - row.low for row in rows) < 40
