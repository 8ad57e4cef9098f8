"""The counters of a key, and the limits that they are held against.

A counter's name has no limit in it, as the `limits` package would have it: a limit that is changed
holds at once, for what was used before too. It has the minute or the day that it counts: in memory
a counter ends by the clock of the wall, and one that was begun while that was an hour ahead would
go on counting for an hour.
"""

import math
import time
from datetime import UTC, datetime

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute

from apps.serve.config import ApiKey

_MINUTE_S, _DAY_S = 60, 86_400
_NANO_USD = 1_000_000_000
"""Counters are whole numbers of 64 bits. One token at $0.02 per million costs 20 of these."""
_MOST_USD = 1e6
"""that one charge counts as, and a thousandth of what a limit does"""


class _PerMinute(RateLimitItemPerMinute):
    def key_for(self, *identifiers: str | int | float | bytes) -> str:
        return _counter(self.namespace, *identifiers)


class LastMinute(_PerMinute):
    """The 60 s before now, wherever in a minute of the clock that is."""


class _PerDay(RateLimitItemPerDay):
    def key_for(self, *identifiers: str | int | float | bytes) -> str:
        return _counter(self.namespace, *identifiers)


def _counter(*names: str | int | float | bytes) -> str:
    """Its name, without the limit's amount, which the package puts in."""
    return "/".join(map(str, names))


def requests_window(key: ApiKey) -> RateLimitItem:
    return LastMinute(key.requests_per_minute or 0, namespace="requests")


def tokens_window(key: ApiKey) -> RateLimitItem:
    return _PerMinute(key.tokens_per_minute or 0, namespace="tokens")


def dollars_window(key: ApiKey) -> RateLimitItem:
    usd = min(key.usd_per_day or 0.0, 1000 * _MOST_USD)
    return _PerDay(max(1, round(usd * _NANO_USD)), namespace="usd")


def is_impossible(wait_s: float) -> bool:
    """Of a place in the last minute: what holds it was counted while the clock was ahead."""
    return wait_s > 2 * _MINUTE_S


def this_minute() -> str:
    return str(int(time.time()) // _MINUTE_S)


def seconds_left_this_minute() -> float:
    return _MINUTE_S - time.time() % _MINUTE_S


def today() -> str:
    return datetime.fromtimestamp(time.time(), UTC).date().isoformat()


def seconds_left_today() -> float:
    return _DAY_S - time.time() % _DAY_S


def cost_of(usd: float) -> int:
    """In the unit of the counters of dollars, rounded up: nothing that costs is free."""
    return math.ceil(min(usd, _MOST_USD) * _NANO_USD)
