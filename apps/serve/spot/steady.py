"""Our policy: the cheapest fleet that keeps a stated availability, by what it has seen so far.

It learns while it runs how often each zone takes machines, and how often two do at once. The price
of being short follows from what has been achieved: it doubles for each day's worth of shortness
beyond what the stated availability allows, and halves for each day's worth in hand. Then mix.py
takes the fleet that costs least. Machines on demand also stand in, one for each replica that is
not ready, until spot is back.
"""

import math
from dataclasses import dataclass

from apps.common.spot.trace import ON_DEMAND
from apps.serve.spot.fleet import Fleet, Wanted
from apps.serve.spot.mix import Odds, best_mix

PRIOR_LOSSES, PRIOR_H = 1.0, 4.0
"""what is believed of a zone before it is known: one loss in four hours"""
PRIOR_TOGETHER = (1.0, 5.0)
"""of losses: one in five comes with another"""
MEMORY_H = 24.0
"""what was seen so long ago counts a third"""
FIRST_REST_S, MAX_REST_S = 180.0, 1800.0
"""how long a zone gets nothing new after it took or refused a machine: doubles while it goes on"""
FIRST_SHORT_PRICE, SHORT_PRICES = 30.0, (5.0, 150.0)
"""hours of the whole fleet on demand that an hour with too few replicas counts"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SteadyConfig:
    spot_price: float
    """of a machine-hour, over that of one on demand"""
    recovery_s: float
    """from a loss until its replacement is ready"""
    availability: float = 0.995
    """share of the time in which all replicas shall be ready"""


@dataclass(slots=True)
class _Zone:
    """What is known of one."""

    losses: float = PRIOR_LOSSES
    hours: float = PRIOR_H
    rest_s: float = 0.0
    rests_until_s: float = 0.0

    @property
    def losses_per_h(self) -> float:
        return _rounded(self.losses / self.hours, 1.5)

    def pass_time(self, hours: float, is_held: bool) -> None:
        kept = math.exp(-hours / MEMORY_H)
        self.losses = PRIOR_LOSSES + (self.losses - PRIOR_LOSSES) * kept
        self.hours = PRIOR_H + (self.hours - PRIOR_H) * kept + hours * is_held

    def rest(self, now_s: float) -> None:
        self.rest_s = min(MAX_REST_S, 2 * self.rest_s or FIRST_REST_S)
        self.rests_until_s = now_s + self.rest_s


class Steady:
    """See above."""

    def __init__(self, zones: tuple[str, ...], config: SteadyConfig) -> None:
        self._config = config
        self._zones = {zone: _Zone() for zone in zones}
        self._joint, self._losses = PRIOR_TOGETHER
        self._lost_s: dict[str, float] = {}
        self._looked_s: float | None = None
        self._was_up = False
        self._hours = self._short_h = 0.0

    def decide(self, fleet: Fleet) -> Wanted:
        self._learn(fleet)
        order = sorted(self._zones, key=lambda zone: self._zones[zone].losses_per_h)
        odds = Odds(
            losses_per_h=tuple(self._zones[zone].losses_per_h for zone in order),
            together=round(self._joint / self._losses, 1),
            recovery_s=self._config.recovery_s,
            spot_price=self._config.spot_price,
            short_price=self._short_price(),
        )
        mix = best_mix(fleet.target, tuple(self._most(fleet, zone) for zone in order), odds)
        return _without_gap(fleet, dict(zip(order, mix.in_zones, strict=True)), mix.on_demand)

    def _most(self, fleet: Fleet, zone: str) -> int:
        """A zone that rests keeps what it has."""
        rests = self._zones[zone].rests_until_s > fleet.now_s
        return min(fleet.held(zone) if rests else 2 * fleet.target, 2 * fleet.target)

    def _short_price(self) -> float:
        allowed = 1 - self._config.availability
        days = (self._short_h - allowed * self._hours) / (allowed * 24)
        least, most = SHORT_PRICES
        return _rounded(min(max(FIRST_SHORT_PRICE * 2.0**days, least), most), 1.25)

    def _learn(self, fleet: Fleet) -> None:
        passed_h = 0.0 if self._looked_s is None else (fleet.now_s - self._looked_s) / 3600
        self._looked_s = fleet.now_s
        self._was_up = self._was_up or fleet.num_ready >= fleet.target
        if self._was_up:  # its first start is nobody's failure
            self._hours += passed_h
            self._short_h += passed_h * (fleet.num_ready < fleet.target)
        self._learn_of_pairs(fleet)
        for zone, known in self._zones.items():
            known.pass_time(passed_h, fleet.held(zone) > 0 or zone in fleet.lost)
            if zone in fleet.lost:
                known.losses += 1
            if zone in fleet.lost or zone in fleet.refused:
                known.rest(fleet.now_s)
            elif fleet.ready.get(zone):
                known.rest_s = 0.0

    def _learn_of_pairs(self, fleet: Fleet) -> None:
        since_s = fleet.now_s - self._config.recovery_s
        elsewhere = {zone: at_s for zone, at_s in self._lost_s.items() if zone not in fleet.lost}
        came_before = any(at_s > since_s for at_s in elsewhere.values())
        self._losses += len(fleet.lost)
        self._joint += len(fleet.lost) * (len(fleet.lost) > 1 or came_before)
        self._lost_s |= dict.fromkeys(fleet.lost, fleet.now_s)


def _without_gap(fleet: Fleet, in_zones: dict[str, int], on_demand: int) -> Wanted:
    """What is ready goes only once what replaces it is; on demand fills what is short."""
    wanted = {**in_zones, ON_DEMAND: on_demand}
    if any(fleet.ready.get(place, 0) < count for place, count in wanted.items()):
        wanted = {place: max(n, fleet.ready.get(place, 0)) for place, n in wanted.items()}
    short = fleet.target - fleet.num_ready_spot
    return {**wanted, ON_DEMAND: max(wanted[ON_DEMAND], short)}


def _rounded(value: float, base: float) -> float:
    """To a power of `base`, so that a mix is worked out once."""
    return base ** round(math.log(value, base))
