"""One job over a market that is written out, tick by tick."""

import math

import numpy as np
import pytest

from apps.common.errors import ConfigError
from apps.common.spot.generator import GeneratorConfig
from apps.common.spot.trace import ON_DEMAND, Market
from apps.train.spot.job import IDLE, Job, Prices, View
from apps.train.spot.policy import POLICIES, Policy, any_zone, greedy, wait
from apps.train.spot.replay import Outcome, replay

JOB = Job(work_s=7200, restart_s=600, checkpoint_s=1200, flush_s=100)


def market(*rows: str, tick_s: float = 600.0) -> Market:
    """`11010`: one digit a tick, one row a zone."""
    up = np.array([[digit == "1" for digit in row] for row in rows])
    return Market(name="m", tick_s=tick_s, zones=tuple("abc"[: len(rows)]), counts=up)


def test_a_job_that_nobody_disturbs_takes_its_work_and_one_restart() -> None:
    outcome = replay(JOB, market("1" * 20), any_zone)
    assert (outcome.ended, outcome.elapsed_s, outcome.spot_s) == (True, 7800, 7800)
    assert (outcome.preemptions, outcome.waiting_s, outcome.lost_s) == (0, 0, 0)
    assert outcome.usd(Prices(spot_usd=6, on_demand_usd=12)) == pytest.approx(13)


def test_a_preemption_loses_what_was_not_saved_and_waiting_is_not_paid() -> None:
    """Restart in tick 0, work in 1 to 4 (2,400 s); of two checkpoints the second is not written."""
    outcome = replay(JOB, market("11111" + "00" + "1" * 20), any_zone)
    assert (outcome.preemptions, outcome.waiting_s, outcome.lost_s) == (1, 1200, 1200)
    assert outcome.elapsed_s == 5 * 600 + 1200 + 600 + (7200 - 2400 + 1200)
    assert outcome.spot_s == outcome.elapsed_s - outcome.waiting_s


@pytest.mark.parametrize(
    ("session_s", "lost_s"), [(0, 0), (1299, 1299), (1300, 100), (2499, 1299), (2500, 100)]
)
def test_a_checkpoint_counts_once_it_is_written(session_s: float, lost_s: float) -> None:
    assert JOB.lost_s(session_s) == lost_s <= JOB.most_lost_s


def test_wait_stays_at_home_and_any_zone_moves() -> None:
    zones = market("0" * 5 + "1" * 20, "1" * 25)
    assert replay(JOB, zones, wait).waiting_s == 3000
    moved = replay(JOB, zones, any_zone)
    assert (moved.waiting_s, moved.preemptions) == (0, 0)


def test_a_trace_that_ends_first_says_so() -> None:
    outcome = replay(JOB, market("0" * 10), any_zone)
    assert not outcome.ended and outcome.misses(7200) and not outcome.misses(None)


def test_greedy_waits_as_long_as_it_may_and_goes_on_demand() -> None:
    job = Job(work_s=7200, restart_s=600, checkpoint_s=600, deadline_s=14400)
    outcome = replay(job, market("0" * 30), greedy)
    assert outcome.ended and outcome.elapsed_s <= 14400
    assert outcome.on_demand_s == 7800 and outcome.waiting_s >= 4800


def test_a_deadline_that_on_demand_cannot_keep_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"on demand alone the job takes 2\.2 h"):
        Job(work_s=7200, restart_s=600, checkpoint_s=600, deadline_s=7500)


def outcomes(policy: Policy, job: Job, seeds: int = 150) -> list[Outcome]:
    """Over random markets with long and short spells."""
    made: list[Outcome] = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        flips = rng.random((int(rng.integers(1, 4)), 400)) < rng.choice([0.02, 0.2, 0.6])
        up = (np.cumsum(flips, axis=1) + rng.integers(0, 2)) % 2 == 0
        zones = tuple(f"z{number}" for number in range(len(up)))
        tick_s = float(rng.choice([60, 300, 600]))
        made.append(replay(job, Market(name="r", tick_s=tick_s, zones=zones, counts=up), policy))
    return made


@pytest.mark.parametrize("name", ["greedy", "uniform-progress-2024"])
def test_no_deadline_is_missed_on_random_markets(name: str) -> None:
    job = Job(work_s=9000, restart_s=650, checkpoint_s=500, flush_s=45, deadline_s=13000)
    made = outcomes(POLICIES[name], job)
    assert len(made) == 150 and not any(one.misses(job.deadline_s) for one in made)
    assert any(one.on_demand_s for one in made) and any(not one.on_demand_s for one in made)


def test_every_second_is_counted_once() -> None:
    job = Job(work_s=9000, restart_s=650, checkpoint_s=500, flush_s=45, deadline_s=13000)
    for one in outcomes(POLICIES["uniform-progress-2024"], job, 60):
        assert one.spot_s + one.on_demand_s + one.waiting_s == pytest.approx(one.elapsed_s)


def test_a_job_on_demand_stays_until_it_is_ahead() -> None:
    job = Job(work_s=36000, restart_s=600, checkpoint_s=600, deadline_s=72000)
    view = View(
        elapsed_s=7200, left_s=36000 - 3700, place=ON_DEMAND, up=(), home="a", up_s=0, tick_s=60
    )
    policy = POLICIES["uniform-progress-2024"]
    assert policy(job, view) == ON_DEMAND  # 3,600 s are due now, 4,200 s two restarts later
    idle = View(elapsed_s=7200, left_s=32300, place=IDLE, up=(), home="a", up_s=0, tick_s=60)
    assert policy(job, idle) == IDLE


@pytest.mark.parametrize("deadline_s", [math.nan, math.inf])
def test_a_deadline_is_a_number_of_hours(deadline_s: float) -> None:
    with pytest.raises(ConfigError, match="expected a number of hours"):
        Job(work_s=3600.0, restart_s=60.0, checkpoint_s=600.0, deadline_s=deadline_s)


@pytest.mark.parametrize("wrong", [{"shape": 0.001}, {"seed": -1}])
def test_a_made_up_market_that_cannot_be_made_is_a_sentence(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=r"at least 0\.05"):
        GeneratorConfig(**wrong)
