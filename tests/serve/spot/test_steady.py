"""Our policy: the mixes it takes, what it learns, and what it comes to beside SkyServe's."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from apps.common.spot import trace
from apps.common.spot.generator import GeneratorConfig, generate
from apps.common.spot.trace import ON_DEMAND
from apps.serve.spot.fleet import Fleet
from apps.serve.spot.mix import Mix, Odds, best_mix, price, spread
from apps.serve.spot.policies import POLICIES
from apps.serve.spot.replay import Outcome, Service, replay
from apps.serve.spot.steady import Steady, SteadyConfig

DATA = Path(os.environ.get("CRIA_TEST_DATA", "/nowhere")) / "spot-traces"
FOUR = Service(replicas=4)
ODDS = Odds(losses_per_h=(0.2, 0.2), together=0.0, recovery_s=360, spot_price=1 / 3, short_price=20)


def test_the_prices_of_the_worked_example() -> None:
    mixes = {Mix((4, 0), 0): 2.93, Mix((2, 2), 0): 4.53, Mix((4, 4), 0): 2.67}
    mixes[Mix((2, 2), 2)] = 3.33
    assert {p: round(price(p, 4, ODDS), 2) for p in mixes} == mixes
    assert best_mix(4, (8, 8), ODDS) == Mix((4, 4), 0)


@pytest.mark.parametrize(
    ("losses_per_h", "most", "mix"),
    [
        ((0.01, 0.01), (8, 8), Mix((4, 0), 0)),  # hardly ever: nothing to spare
        ((0.2, 0.2, 0.2), (8, 8, 8), Mix((2, 2, 2), 0)),  # three zones spare two with six
        ((0.2,), (0,), Mix((0,), 4)),  # no spot at all
        ((5.0,), (8,), Mix((0,), 4)),  # spot that never stays
    ],
)
def test_the_cheapest_fleet(losses_per_h: tuple, most: tuple, mix: Mix) -> None:
    assert best_mix(4, most, replace(ODDS, losses_per_h=losses_per_h)) == mix


def test_zones_that_fail_together_make_for_more_to_spare() -> None:
    odds = replace(ODDS, losses_per_h=(0.2, 0.2, 0.2), short_price=200)
    assert best_mix(4, (8, 8, 8), odds).total == 6
    assert best_mix(4, (8, 8, 8), replace(odds, together=0.5)).total > 6


def test_an_even_spread_keeps_to_what_zones_have() -> None:
    assert spread(7, (8, 8, 1)) == (3, 3, 1)
    assert spread(9, (2, 1)) == (2, 1)


def fleet(now_s: float, ready: dict[str, int], **given: object) -> Fleet:
    return Fleet(now_s=now_s, target=4, ready=ready, starting={}, **given)  # type: ignore[arg-type]


def test_a_zone_that_took_machines_rests_and_on_demand_stands_in() -> None:
    policy = Steady(("a", "b"), SteadyConfig(spot_price=1 / 3, recovery_s=240))
    policy.decide(fleet(0, {"a": 4, "b": 4}))
    wanted = policy.decide(fleet(60, {"b": 2}, lost={"a": 4, "b": 2}))
    assert wanted["a"] == 0 and wanted["b"] == 2 and wanted[ON_DEMAND] >= 2
    back = policy.decide(fleet(24 * 3600, {"b": 2, ON_DEMAND: 2}))
    assert back["a"] + back["b"] >= 4


def test_what_is_ready_stays_until_what_replaces_it_is() -> None:
    policy = Steady(("a", "b", "c"), SteadyConfig(spot_price=1 / 3, recovery_s=240))
    wanted = policy.decide(fleet(0, {ON_DEMAND: 4}))
    assert wanted[ON_DEMAND] == 4 and sum(wanted.values()) > 8
    spot = {place: n for place, n in wanted.items() if place != ON_DEMAND}
    assert policy.decide(fleet(60, {**spot, ON_DEMAND: 4}))[ON_DEMAND] == 0


def test_on_made_up_zones_it_keeps_its_availability_at_less_than_skyserve() -> None:
    made = generate(GeneratorConfig(zones=3, hours=200, up_h=6, down_h=2, seed=3))
    made = replace(made, counts=made.counts * 8)
    ours, theirs = (run(name, made) for name in ("steady", "skyserve+2"))
    assert ours.availability >= 0.994 and ours.cost < min(0.57, theirs.cost)


@pytest.mark.skipif(not DATA.is_dir(), reason="the public traces are under CRIA_TEST_DATA only")
def test_on_a_public_trace_it_is_ready_as_stated_and_cheaper_than_skyserve() -> None:
    (market,) = trace.read([str(DATA / "preemption" / "4-node")], 1)
    ours, theirs = (run(name, market) for name in ("steady", "skyserve+1"))
    assert ours.availability >= 0.995 > theirs.availability
    assert ours.cost <= 0.57


def run(name: str, market: trace.Market) -> Outcome:
    return replay(FOUR, market, POLICIES[name](market.zones, FOUR))
