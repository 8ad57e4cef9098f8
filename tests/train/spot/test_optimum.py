"""The optimum against every schedule there is, and below every policy."""

import itertools

import numpy as np
import pytest

from apps.common.spot.generator import GeneratorConfig, generate
from apps.common.spot.trace import Market
from apps.train.spot.chain import FRESH, OLD, guess, learn, state
from apps.train.spot.job import Job, Prices
from apps.train.spot.learnt import NAMES, best_line, made
from apps.train.spot.optimum import optimum_usd
from apps.train.spot.policy import LINES, POLICIES
from apps.train.spot.replay import replay

PRICES = Prices(spot_usd=1.0, on_demand_usd=3.0)


def by_enumeration(job: Job, market: Market, deadline_ticks: int) -> float:
    """The cheapest of all sequences of places; restarts and work are whole ticks."""
    tick_h, work = market.tick_s / 3600, round(job.work_s / market.tick_s)
    restart = round(job.restart_s / market.tick_s)
    best = float("inf")
    for places in itertools.product((-1, *range(len(market.zones)), 9), repeat=deadline_ticks):
        done, usd, before, starting = 0, 0.0, -1, 0
        for tick, place in enumerate(places):
            if place not in (-1, 9) and not market.up[place, tick]:
                break
            if place != before:
                before, starting = place, restart
            if place == -1:
                continue
            usd += tick_h * (PRICES.on_demand_usd if place == 9 else PRICES.spot_usd)
            if starting:
                starting -= 1
            else:
                done += 1
            if done == work:
                best = min(best, usd)
                break
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_is_that_of_all_schedules(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 2, (2, 7))
    market = Market(name="m", tick_s=600, zones=("a", "b"), counts=counts)
    job = Job(work_s=1800, restart_s=600, checkpoint_s=600, deadline_s=7 * 600)
    assert optimum_usd(job, market, PRICES) == pytest.approx(by_enumeration(job, market, 7))


@pytest.mark.parametrize("work_s", [30.0, 600.0, 3599.0])
def test_a_job_shorter_than_a_tick_is_not_free(work_s: float) -> None:
    market = Market(name="m", tick_s=3600, zones=("a",), counts=np.ones((1, 4), dtype=int))
    job = Job(work_s=work_s, restart_s=0, checkpoint_s=600)
    assert optimum_usd(job, market, PRICES) == pytest.approx(work_s / 3600, rel=1 / 40)


@pytest.mark.parametrize("seed", range(4))
def test_no_policy_is_cheaper_than_the_optimum_or_late(seed: int) -> None:
    market = generate(GeneratorConfig(zones=2, up_h=2, down_h=2, hours=300, seed=seed))
    before, after = market.halves()
    job = Job(work_s=7.3 * 3600, restart_s=700, checkpoint_s=500, flush_s=40, deadline_s=36000)
    starts = range(0, 500, 50)
    for name in (name for name in NAMES if name not in ("wait", "any-zone")):
        policy = made(name, job, before, PRICES, starts)
        for start in starts:
            outcome = replay(job, after, policy, start)
            assert not outcome.misses(job.deadline_s)
            assert outcome.usd(PRICES) >= optimum_usd(job, after, PRICES, start) - 1e-9


@pytest.mark.parametrize("restart_s", [0, 60, 180, 200, 720, 900])
def test_a_restart_that_is_no_whole_tick_is_paid_in_full(restart_s: int) -> None:
    market = Market(name="m", tick_s=600, zones=("a",), counts=np.ones((1, 50), dtype=int))
    job = Job(work_s=7200, restart_s=restart_s, checkpoint_s=600)
    assert optimum_usd(job, market, PRICES) == pytest.approx((7200 + restart_s) / 3600)


def test_where_nothing_ends_the_optimum_is_infinite() -> None:
    market = Market(name="m", tick_s=600, zones=("a",), counts=np.zeros((1, 50), dtype=int))
    assert optimum_usd(Job(work_s=600, restart_s=60, checkpoint_s=60), market, PRICES) == np.inf


def test_a_chain_counts_what_a_history_shows() -> None:
    up = np.tile(np.array([True] * 30 + [False] * 10), 300)[None]
    chain = learn(Market(name="m", tick_s=600, zones=("a",), counts=up), 600)
    assert chain.moves.sum(axis=1) == pytest.approx(1)
    assert chain.moves[0, FRESH] == pytest.approx(0.1, abs=0.01)
    assert chain.moves[OLD, 0] == pytest.approx(1 / 27, abs=0.01)
    assert [state(seconds) for seconds in (0, 600, 1800, 1801)] == [0, FRESH, FRESH, OLD]
    assert guess(600).moves.sum(axis=1) == pytest.approx(1)


def hopping(ticks: int, hours: float = 400) -> Market:
    """Two zones that have machines by turns, so many ticks each."""
    in_first = np.arange(int(hours * 6)) // ticks % 2 == 0
    counts = np.stack([in_first, ~in_first]).astype(np.int64)
    return Market(name="m", tick_s=600, zones=("a", "b"), counts=counts)


def test_a_chain_counts_how_often_another_zone_must_be_taken() -> None:
    moved = learn(hopping(6, hours=4000), 600).moved
    assert moved[OLD] == pytest.approx(1 / 6, abs=0.01) and moved[0] == 0
    assert not learn(hopping(6).alone()[0], 600).moved.any()


def test_machines_that_hop_from_zone_to_zone_are_not_chased() -> None:
    """Some zone always has machines, for 20 minutes: a restart of 12 leaves no time to save."""
    job = Job(work_s=36000, restart_s=720, checkpoint_s=600, flush_s=40, deadline_s=54000)
    before, after = hopping(2).halves()
    policy = made("least-cost", job, before, PRICES, range(0, 100, 10))
    outcome, chasing = (replay(job, after, one) for one in (policy, POLICIES["greedy"]))
    assert outcome.preemptions <= 3 < 10 < chasing.preemptions
    assert outcome.usd(PRICES) < chasing.usd(PRICES)


def test_where_spot_never_comes_back_the_best_line_does_not_wait_for_it() -> None:
    """Machines come for 20 minutes every 4 hours: no session pays its restart."""
    up = np.tile(np.array([True] * 2 + [False] * 22), 20)[None]
    market = Market(name="m", tick_s=600, zones=("a",), counts=up)
    job = Job(work_s=36000, restart_s=1200, checkpoint_s=600, flush_s=60, deadline_s=54000)
    line = best_line(job, market, PRICES, range(0, 100, 10))
    assert line in LINES and line.settle_restarts > 0
