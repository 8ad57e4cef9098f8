"""What a key may use: requests and tokens a minute, streams at a time, dollars a day.

Counting is the `limits` package's, in memory or in Redis, which note the time of each request.
Tokens and dollars are known only when they are used, so a window is charged afterwards, and what
was used above a limit shuts the rest of that minute of the clock, or of that day of UTC. No waiting
here: the same class runs in a process of its own for all gateways, or in a gateway while that one
is away.
"""

import logging
import time
from collections import Counter
from typing import NamedTuple

from limits import RateLimitItem
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from apps.serve.admission.windows import (
    LastMinute,
    cost_of,
    dollars_window,
    is_impossible,
    requests_window,
    seconds_left_this_minute,
    seconds_left_today,
    this_minute,
    today,
    tokens_window,
)
from apps.serve.config import ApiKey

logger = logging.getLogger("ray.serve")

LEASE_S = 5.0
"""A gateway that says nothing for so long is gone, and its streams with it."""


class Refusal(NamedTuple):
    limit: str
    """its name in the key's settings"""
    message: str
    retry_after_s: float


class Limiter:
    def __init__(self, url: str = "") -> None:
        storage = storage_from_string(url or "memory://")
        self._moving = MovingWindowRateLimiter(storage)
        self._fixed = FixedWindowRateLimiter(storage)
        self._streams: dict[tuple[str, str], tuple[int, float]] = {}
        self._owed: Counter[tuple[RateLimitItem, str, str]] = Counter()
        """{(window, key's name, its minute or day): what it has used and nobody has counted}"""

    def admit(self, key: ApiKey, prompt_tokens: int, gateway: str, streams: int) -> Refusal | None:
        """Charge a request and its prompt, or say why not. `streams` run at that gateway now."""
        self._pay()
        refusal = self._refusal(key, prompt_tokens, gateway, streams)
        if refusal is None:
            self.charge(key, prompt_tokens, 0.0, requests=1)
            self.renew(key.name, gateway, streams + 1)
        return refusal

    def charge(self, key: ApiKey, tokens: int, usd: float, requests: int = 0) -> None:
        """`requests` were admitted."""
        if key.requests_per_minute is not None and requests:
            self._owed[requests_window(key), key.name, this_minute()] += requests
        if key.tokens_per_minute is not None and tokens:
            self._owed[tokens_window(key), key.name, this_minute()] += tokens
        if key.usd_per_day is not None and usd:
            self._owed[dollars_window(key), key.name, today()] += cost_of(usd)
        try:
            self._pay()
        except Exception as error:
            logger.warning("what keys have used is counted when Redis is back: %s", error)

    def _pay(self) -> None:
        """Count what is owed, that of the time in which Redis was away too. Raises when it is.

        What it did not confirm in time is owed still, and it may have counted that all the same:
        at most one such charge counts twice.
        """
        now = this_minute(), today()
        self._owed = Counter({owed: cost for owed, cost in self._owed.items() if owed[2] in now})
        for (window, name, span), cost in list(self._owed.items()):
            if isinstance(window, LastMinute):
                for _ in range(cost):  # together, more than there is room for would be none
                    self._moving.hit(window, name)
            else:
                self._fixed.hit(window, name, span, cost=cost)
            del self._owed[window, name, span]

    def renew(self, name: str, gateway: str, streams: int) -> None:
        """How many streams of the key run at that gateway."""
        self._streams[name, gateway] = (streams, time.monotonic() + LEASE_S)

    def _refusal(
        self, key: ApiKey, prompt_tokens: int, gateway: str, streams: int
    ) -> Refusal | None:
        name = key.name
        most = key.concurrent_streams
        if most is not None and streams + self._streams_elsewhere(name, gateway) >= most:
            message = f"The key of {name!r} may have {most} answers under way at a time"
            return Refusal("concurrent_streams", message, 1.0)
        if key.usd_per_day is not None and not self._fixed.test(dollars_window(key), name, today()):
            dollars = f"{key.usd_per_day:.9f}".rstrip("0").rstrip(".")  # never 5e-05
            message = f"The key of {name!r} may spend ${dollars} a day"
            return Refusal("usd_per_day", message, max(1.0, seconds_left_today()))
        if key.tokens_per_minute is not None and not self._fixed.test(
            tokens_window(key),
            name,
            this_minute(),
            cost=max(1, min(prompt_tokens, key.tokens_per_minute)),
        ):
            message = f"The key of {name!r} may use {key.tokens_per_minute:,} tokens a minute"
            return Refusal("tokens_per_minute", message, max(1.0, seconds_left_this_minute()))
        if key.requests_per_minute is not None and (wait_s := self._request_wait_s(key)):
            message = f"The key of {name!r} may make {key.requests_per_minute:,} requests a minute"
            return Refusal("requests_per_minute", message, wait_s)
        return None

    def _request_wait_s(self, key: ApiKey) -> float:
        """Until there is room for another; 0: there is."""
        window = requests_window(key)
        if self._moving.test(window, key.name):
            return 0.0
        wait_s = self._moving.get_window_stats(window, key.name).reset_time - time.time()
        if is_impossible(wait_s):
            self._moving.clear(window, key.name)
            return 0.0
        return max(1.0, wait_s)

    def _streams_elsewhere(self, name: str, gateway: str) -> int:
        now_s = time.monotonic()
        self._streams = {k: v for k, v in self._streams.items() if v[1] > now_s}
        others = (k for k in self._streams if k[0] == name and k[1] != gateway)
        return sum(self._streams[k][0] for k in others)
