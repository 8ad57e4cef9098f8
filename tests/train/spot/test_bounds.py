"""The bounds that the benchmark of spot policies prints."""

from statistics import fmean

import numpy as np
import pytest

from apps.common.spot.generator import GeneratorConfig, generate
from apps.train.spot.chain import Chain, learn
from apps.train.spot.job import Job, Prices
from apps.train.spot.policy import POLICIES
from apps.train.spot.replay import replay
from benchmarks.spot_bounds import closable, drawn, in_hindsight

PRICES = Prices(spot_usd=1.0, on_demand_usd=3.0)
JOB = Job(work_s=36000, restart_s=600, checkpoint_s=600, flush_s=40, deadline_s=48000)
LAW = Chain(
    tick_s=600,
    moves=np.array([[0.9, 0.1, 0.0], [0.2, 0.6, 0.2], [0.02, 0.0, 0.98]]),
    moved=np.array([0.0, 0.1, 0.05]),
)


def test_a_drawn_market_has_the_law_that_it_was_drawn_from() -> None:
    learnt = learn(drawn(LAW, 200_000, seed=1), 600)
    assert learnt.moves[:, 0] == pytest.approx(LAW.moves[:, 0], rel=0.05)
    assert learnt.moved == pytest.approx(LAW.moved, rel=0.1)


def test_nobody_who_does_not_know_the_future_closes_all_of_the_gap() -> None:
    market = generate(GeneratorConfig(zones=1, up_h=2, down_h=2, shape=1.0, hours=300))
    made = closable(JOB, market, PRICES, most_starts=8, seed=0)
    greedy, policy, optimum = map(fmean, (made.greedy_usd, made.policy_usd, made.optimum_usd))
    assert optimum < policy < greedy
    assert 0.1 < (greedy - policy) / (greedy - optimum) < 0.95


def test_who_may_choose_afterwards_pays_no_more_than_published() -> None:
    market = generate(GeneratorConfig(zones=2, up_h=2, down_h=2, hours=300))
    begins = range(0, 1000, 100)
    best = fmean(in_hindsight(JOB, market, PRICES, begins))
    for name in ("uniform-progress-2024", "greedy"):
        usd = [replay(JOB, market, POLICIES[name], start).usd(PRICES) for start in begins]
        assert best <= fmean(usd) + 1e-9
