"""A service on a few made-up zones."""

import numpy as np
import pytest

from apps.common.errors import ConfigError
from apps.common.spot.trace import ON_DEMAND, Market
from apps.serve.spot.fleet import Fleet, Wanted
from apps.serve.spot.known import OnDemand, SkyServe, Spread
from apps.serve.spot.replay import Service, replay, together

TWO = Service(replicas=2, cold_start_s=120, look_s=60, spot_price=0.25)


def market(*rows: list[int]) -> Market:
    zones = tuple("abc"[: len(rows)])
    return Market(name="m", tick_s=60, zones=zones, counts=np.array(rows))


class Fixed:
    """Wants the same at every look, and keeps what it saw."""

    def __init__(self, **wanted: int) -> None:
        self.wanted, self.seen = wanted, list[Fleet]()

    def decide(self, fleet: Fleet) -> Wanted:
        self.seen.append(fleet)
        return self.wanted


def test_on_demand_alone_is_always_there_and_costs_one() -> None:
    outcome = replay(TWO, market([0] * 50), OnDemand())
    assert (outcome.availability, outcome.capacity, outcome.cost) == (1.0, 1.0, 1.0)
    assert outcome.on_demand_share == 1.0 and outcome.machine_hours == pytest.approx(100 / 60)


def test_a_machine_is_ready_after_its_cold_start_and_costs_from_its_start() -> None:
    policy = Fixed(a=2)
    outcome = replay(TWO, market([2] * 10), policy)
    assert [sum(fleet.ready.values()) for fleet in policy.seen] == [0, 0] + [2] * 8
    assert outcome.cost == 0.25 and outcome.availability == 1.0


def test_machines_beyond_what_a_zone_has_are_taken_and_told() -> None:
    policy = Fixed(a=2)
    outcome = replay(TWO, market([2] * 5 + [1] * 5), policy)
    assert [dict(fleet.lost) for fleet in policy.seen[4:7]] == [{}, {"a": 1}, {}]
    assert policy.seen[6].refused == {"a"}  # it asked for a second one again
    assert outcome.losses == 1 and outcome.capacity == pytest.approx((3 * 1 + 5 * 0.5) / 8)
    assert outcome.longest_short_s == 300


def test_outcomes_count_by_their_hours() -> None:
    short, long = replay(TWO, market([0] * 10), Fixed()), replay(TWO, market([2] * 30), Fixed(a=2))
    both = together([short, long])
    assert both.cost == pytest.approx(0.25 * 30 / 40) and both.availability == pytest.approx(0.75)


def test_spread_is_even() -> None:
    assert Spread(("a", "b", "c"), 1).decide(fleet(target=3)) == {"a": 2, "b": 1, "c": 1}


def fleet(**given: object) -> Fleet:
    fields = {"now_s": 0.0, "target": 2, "ready": {}, "starting": {}, **given}
    return Fleet(**fields)  # type: ignore[arg-type]


def test_skyserve_leaves_the_zone_that_failed_and_stands_in_on_demand() -> None:
    policy = SkyServe(("a", "b", "c"), extra=1)
    assert policy.decide(fleet()) == {"a": 1, "b": 1, "c": 1, ON_DEMAND: 2}
    lost = fleet(ready={"b": 1, "c": 1, ON_DEMAND: 1}, lost={"a": 1})
    assert policy.decide(lost) == {"a": 0, "b": 2, "c": 1, ON_DEMAND: 1}
    assert policy.decide(fleet(ready={"b": 2, "c": 1}))[ON_DEMAND] == 0


@pytest.mark.parametrize(
    "wrong", [{"replicas": 0}, {"availability": 1.0}, {"spot_price": 0}, {"look_s": -1}]
)
def test_a_service_that_cannot_be_is_a_sentence(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Service(**{"replicas": 2, **wrong})  # type: ignore[arg-type]
