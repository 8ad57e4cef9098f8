"""A service on the spot machines of a trace: what a policy's decisions come to.

A machine costs from its start and is ready `cold_start_s` later. When fewer machines are left in a
zone than the service holds there, the oldest ones go, without notice. A start that a zone has no
machine for is known at the next look and costs nothing. On demand there is always a machine.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from apps.common.errors import ConfigError, InputError
from apps.common.files.config import above_zero
from apps.common.spot.trace import ON_DEMAND, Market
from apps.serve.spot.fleet import Fleet, Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What is to be kept up."""

    replicas: int
    """that have to be ready"""
    cold_start_s: float = 180.0
    """from the start of a machine to its first token"""
    look_s: float = 60.0
    """between two decisions"""
    spot_price: float = 1 / 3
    """of a machine-hour, over that of one on demand"""
    availability: float = 0.995
    """share of the time in which all of them shall be ready; `steady` aims at it"""

    def __post_init__(self) -> None:
        above_zero(self, "", "replicas", "cold_start_s", "look_s", "spot_price")
        if not 0 < self.availability < 1:
            raise ConfigError(
                f"availability is {self.availability:g}; expected more than 0 and less than 1."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Of one replay, its first cold start left out."""

    hours: float
    availability: float
    """share of the time in which all replicas were ready"""
    capacity: float
    """mean share of the target that was ready"""
    cost: float
    """over that of as many machines on demand all the time"""
    machine_hours: float
    on_demand_share: float
    """of the machine-hours"""
    losses: int
    """machines that were reclaimed"""
    longest_short_s: float
    """longest time with fewer"""


@dataclass(slots=True)
class _Machines:
    """What runs: of each place, when its machines were started, oldest first."""

    since_s: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def reclaim(self, left: Mapping[str, int]) -> dict[str, int]:
        lost: dict[str, int] = {}
        for zone, starts in self.since_s.items():
            over = len(starts) - left[zone] if zone != ON_DEMAND else 0
            if over > 0:
                del starts[:over]
                lost[zone] = over
        return lost

    def follow(self, wanted: Mapping[str, int], left: Mapping[str, int], now_s: float) -> set[str]:
        """Start and end machines; the zones that had too few."""
        refused: set[str] = set()
        for place in {*wanted, *self.since_s}:
            starts = self.since_s.setdefault(place, [])
            count = wanted.get(place, 0)
            most = count if place == ON_DEMAND else min(count, left[place])
            starts += [now_s] * (most - len(starts))
            del starts[count:]
            if most < count:
                refused.add(place)
        return refused

    def split(self, ready_before_s: float) -> tuple[dict[str, int], dict[str, int]]:
        """(ready, starting) by place."""
        ready = {p: sum(s <= ready_before_s for s in starts) for p, starts in self.since_s.items()}
        return ready, {p: len(starts) - ready[p] for p, starts in self.since_s.items()}


def replay(service: Service, market: Market, policy: Policy) -> Outcome:
    """From the beginning of the market to its end; InputError if nothing can be ready by then."""
    machines, refused = _Machines(), set[str]()
    num_looks = int(market.num_ticks * market.tick_s / service.look_s)
    first = math.ceil(service.cold_start_s / service.look_s)
    if num_looks <= first:
        raise InputError(
            f"The trace of {market.name} ends after {3600 * market.hours:g} s, before a machine "
            f"can be ready: a cold start takes {service.cold_start_s:g} s and a look comes every "
            f"{service.look_s:g} s; give a longer trace."
        )
    ready_at = np.zeros(num_looks, dtype=np.int64)
    spot_looks = on_demand_looks = losses = 0
    for look in range(num_looks):
        now_s = look * service.look_s
        column = market.counts[:, int(now_s / market.tick_s)].tolist()
        left = dict(zip(market.zones, column, strict=True))
        lost = machines.reclaim(left)
        ready, starting = machines.split(now_s - service.cold_start_s)
        wanted = policy.decide(
            Fleet(
                now_s=now_s,
                target=service.replicas,
                ready=ready,
                starting=starting,
                lost=lost,
                refused=frozenset(refused),
            )
        )
        refused = machines.follow(wanted, left, now_s)
        ready, starting = machines.split(now_s - service.cold_start_s)
        ready_at[look] = sum(ready.values())
        on_demand = ready.get(ON_DEMAND, 0) + starting.get(ON_DEMAND, 0)
        on_demand_looks += on_demand
        spot_looks += sum(ready.values()) + sum(starting.values()) - on_demand
        losses += sum(lost.values())
    counted = ready_at[first:]
    cost = on_demand_looks + spot_looks * service.spot_price
    return Outcome(
        hours=num_looks * service.look_s / 3600,
        availability=float((counted >= service.replicas).mean()),
        capacity=float((np.minimum(counted, service.replicas) / service.replicas).mean()),
        cost=cost / (num_looks * service.replicas),
        machine_hours=(on_demand_looks + spot_looks) * service.look_s / 3600,
        on_demand_share=on_demand_looks / max(on_demand_looks + spot_looks, 1),
        losses=losses,
        longest_short_s=_longest_run(counted < service.replicas) * service.look_s,
    )


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Of several markets, by their hours."""
    hours = np.array([outcome.hours for outcome in outcomes])

    def mean(values: list[float], weights: NDArray[np.float64]) -> float:
        return float((np.array(values) * weights).sum() / max(weights.sum(), 1e-9))

    rented = np.array([outcome.machine_hours for outcome in outcomes])
    return Outcome(
        hours=float(hours.sum()),
        availability=mean([outcome.availability for outcome in outcomes], hours),
        capacity=mean([outcome.capacity for outcome in outcomes], hours),
        cost=mean([outcome.cost for outcome in outcomes], hours),
        machine_hours=float(rented.sum()),
        on_demand_share=mean([outcome.on_demand_share for outcome in outcomes], rented),
        losses=sum(outcome.losses for outcome in outcomes),
        longest_short_s=max(outcome.longest_short_s for outcome in outcomes),
    )


def _longest_run(is_short: NDArray[np.bool_]) -> int:
    """Of ones: [0 1 1 0 1] has 2."""
    edges = np.diff(np.concatenate(([0], is_short.astype(np.int8), [0])))
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return int(lengths.max(initial=0))
