"""Intervals cover what they promise: simulated 95 % intervals hold the truth, at the edges too.

An interval of one or three yes-or-no questions can only hold the truth always or at the odds of a
few outcomes; there the claim is a floor.
"""

from collections.abc import Callable
from math import comb

import numpy as np
import pytest

from apps.common import ratings
from apps.eval.scores.statistics import Resampling, mean_interval, wilson_interval

Draw = Callable[[int], np.ndarray]
ONE_TO_TEN = (1.0, 10.0)


def coverage(draw: Draw, mean: float, scale: tuple[float, float], n: int, trials: int) -> float:
    held = 0
    for trial in range(trials):
        values = {str(i): [float(v)] for i, v in enumerate(draw(n))}
        low, high = mean_interval(values, scale, Resampling(num_resamples=400, seed=trial))
        held += low - 1e-9 <= mean <= high + 1e-9
    return held / trials


@pytest.mark.parametrize("n", [1, 3, 10, 80])
@pytest.mark.parametrize("p", [0.5, 0.9, 1.0])
def test_a_win_rate_lies_in_its_interval(n: int, p: float) -> None:
    rng = np.random.default_rng(7)
    floor = 0.87 if n == 1 else 0.92  # one question lost at p = .9: no interval short of 1 holds .9
    found = coverage(lambda size: (rng.random(size) < p).astype(float), p, (0.0, 1.0), n, 400)
    assert found >= floor
    if n >= 10 and p < 1:
        assert found <= 0.99


@pytest.mark.parametrize("n", [3, 10, 80])
def test_a_mean_score_lies_in_its_interval(n: int) -> None:
    rng = np.random.default_rng(8)
    scores, odds = np.array([4, 6, 7, 8, 9, 10.0]), [0.05, 0.1, 0.2, 0.35, 0.25, 0.05]
    mean = float(scores @ odds)
    assert coverage(lambda size: rng.choice(scores, size, p=odds), mean, ONE_TO_TEN, n, 400) >= 0.93


@pytest.mark.parametrize("n", [1, 3, 10, 80])
@pytest.mark.parametrize("p", [0.5, 0.9, 1.0])
def test_a_share_lies_in_wilsons_interval(n: int, p: float) -> None:
    held = sum(
        comb(n, k) * p**k * (1 - p) ** (n - k)
        for k in range(n + 1)
        if wilson_interval(k, n)[0] <= p + 1e-12 and p - 1e-12 <= wilson_interval(k, n)[1]
    )
    assert held >= (0.9 if n == 1 else 0.925) - 1e-9


def test_one_question_is_no_certainty() -> None:
    low, high = mean_interval({"q": [1.0]}, (0.0, 1.0))
    assert low < 0.2 and high == 1.0
    low, high = mean_interval({"q": [8.0]}, ONE_TO_TEN)
    assert low < 4 and high > 8.5
    ten = {str(i): [8.0] for i in range(10)}
    low, high = mean_interval(ten, ONE_TO_TEN)
    assert 6 < low < 8 < high < 9
    best, worst = ratings.leaderboard(ratings.Battles.of([("good", "poor", 1.0, "q")]))
    assert best.low < worst.high, "one win does not settle who is better"
    assert best.high - best.low > 400


@pytest.mark.parametrize(("p", "n"), [(0.5, 3), (0.5, 80), (0.9, 1), (0.9, 10), (0.9, 80)])
def test_a_rating_lies_in_its_interval(p: float, n: int) -> None:
    rng = np.random.default_rng(9)
    truth = ratings.CENTER + ratings.ELO_PER_LOG_ODDS * np.log(p / (1 - p)) / 2
    held = 0
    for trial in range(200):
        battles = ratings.Battles(
            models=("a", "b"),
            first_N=np.zeros(n, np.int64),
            second_N=np.ones(n, np.int64),
            outcome_N=(rng.random(n) < p).astype(np.float64),
            cluster_N=np.arange(n),
        )
        rows = ratings.leaderboard(battles, num_resamples=300, seed=trial)
        row = next(row for row in rows if row.model == "a")
        held += row.low <= truth <= row.high
    assert held / 200 >= (0.86 if n == 1 else 0.9)
