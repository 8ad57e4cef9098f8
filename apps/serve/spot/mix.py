"""The mix of spot and on demand that costs least, when being short has a price too.

A loss in a zone that holds more machines than the fleet can spare leaves too few replicas until
the replacement is ready. With 4 replicas, spot at 1/3, zones that take machines every 5 h, 0.1 h
until a replacement is ready, and an hour of being short priced as 20 fleets on demand (80):

    4 + 0              1.33 machines on demand    a loss takes 4, spare 0    2 % short    1.33 + 1.6
    2 + 2              1.33                       a loss takes 2, spare 0    4 % short    1.33 + 3.2
    4 + 4              2.67                       a loss takes 4, spare 4    never        2.67
    2 + 2 and 2 more   3.33                       a loss takes 2, spare 2    never        3.33
      on demand
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Mix:
    """Machines in the zones, in the order of the odds, and on demand."""

    in_zones: tuple[int, ...]
    on_demand: int

    @property
    def total(self) -> int:
        return sum(self.in_zones) + self.on_demand


@dataclass(frozen=True, kw_only=True, slots=True)
class Odds:
    """What a mix is judged by."""

    losses_per_h: tuple[float, ...]
    """of each zone: how often it takes machines; the one that does least comes first"""
    together: float
    """share of the losses that come with one in another zone"""
    recovery_s: float
    """from a loss until its replacement is ready"""
    spot_price: float
    """of a machine-hour, over that of one on demand"""
    short_price: float
    """of an hour with too few replicas, in hours of the whole fleet on demand"""


@lru_cache(maxsize=1 << 14)
def best_mix(target: int, most: tuple[int, ...], odds: Odds) -> Mix:
    """For `target` replicas, with at most so many machines in each zone."""
    best, least = Mix((0,) * len(most), target), math.inf
    for mix in _mixes(target, most):
        if rent(mix, odds) < least and (whole := price(mix, target, odds)) < least:
            best, least = mix, whole
    return best


def _mixes(target: int, most: Sequence[int]) -> Iterator[Mix]:
    """As even as can be over the first zones, with 0 to all replicas on demand."""
    for on_demand in range(target + 1):
        yield Mix((0,) * len(most), on_demand)
        for used in range(1, len(most) + 1):
            caps = (*most[:used], *(0,) * (len(most) - used))
            for total in range(max(1, target - on_demand), 2 * target + 1):
                yield Mix(spread(total, caps), on_demand)


@lru_cache(maxsize=1 << 14)
def spread(total: int, most: tuple[int, ...]) -> tuple[int, ...]:
    """As even as can be: 7 over at most (8, 8, 1) is (3, 3, 1). Less where there is no room."""
    counts = [0] * len(most)
    for _ in range(min(total, sum(most))):
        room = [i for i, cap in enumerate(most) if counts[i] < cap]
        counts[min(room, key=lambda i: counts[i])] += 1
    return tuple(counts)


def rent(mix: Mix, odds: Odds) -> float:
    """Of an hour, in machine-hours on demand."""
    return mix.on_demand + sum(mix.in_zones) * odds.spot_price


def price(mix: Mix, target: int, odds: Odds) -> float:
    """The rent, and what being short costs."""
    return rent(mix, odds) + odds.short_price * target * short_share(mix, target, odds)


def short_share(mix: Mix, target: int, odds: Odds) -> float:
    """Share of the time with fewer than `target` ready, by losses of one zone and of pairs."""
    spare = mix.total - target
    if spare < 0:
        return 1.0
    held = [(n, rate) for n, rate in zip(mix.in_zones, odds.losses_per_h, strict=True) if n]
    short_per_h = 0.0
    for i, (count, rate) in enumerate(held):
        others = [n for j, (n, _) in enumerate(held) if j != i]
        share_too_much = sum(count + n > spare for n in others) / max(len(others), 1)
        short_per_h += rate * (1.0 if count > spare else odds.together * share_too_much)
    return short_per_h * odds.recovery_s / 3600
