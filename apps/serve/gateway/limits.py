"""A gateway's view of what its clients' keys may use."""

import asyncio
import logging
import math
import time
import uuid
from collections import Counter
from typing import Protocol

from apps.serve.admission.limiter import LEASE_S, Limiter, Refusal
from apps.serve.config import ApiKey
from apps.serve.errors import ApiError

logger = logging.getLogger("ray.serve")

_ANSWER_TIMEOUT_S = 1.0
_SILENCE_S = 5.0
"""for which a limiter that did not answer in time is not asked again"""


class SharedLimiter(Protocol):
    """The limiter of all gateways; it may be away for a while."""

    async def admit(
        self, key: ApiKey, prompt_tokens: int, gateway: str, streams: int
    ) -> Refusal | None: ...

    def charge(self, key: ApiKey, tokens: int, usd: float, requests: int = 0) -> None: ...

    def renew(self, name: str, gateway: str, streams: int) -> None: ...


class KeyLimits:
    """Asks the shared limiter; while it is away, this gateway's own counts decide.

    So its death neither opens the gates nor shuts them: a key is held to what it has used here.
    """

    def __init__(self, shared: SharedLimiter | None = None) -> None:
        self._shared = shared
        self._here = Limiter()
        self._gateway = uuid.uuid4().hex
        self._streams: Counter[str] = Counter()
        self._asks_again_s: float | None = None
        """of a limiter that fell silent"""

    async def admit(self, key: ApiKey | None, prompt_tokens: int) -> bool:
        """Whether `end` must follow. Raises ApiError 429 that names the limit."""
        if key is None or not key.has_limits:
            return False
        streams = self._streams[key.name]
        self._streams[key.name] += 1
        try:
            refusal = await self._ask(key, prompt_tokens, streams)
            if refusal is not None:
                raise ApiError(
                    429,
                    f"{refusal.message}; try again in {math.ceil(refusal.retry_after_s)} s.",
                    code=refusal.limit,
                    retry_after_s=refusal.retry_after_s,
                )
        except BaseException:
            self._streams[key.name] -= 1
            raise
        return True

    def end(self, key: ApiKey, tokens: int, usd: float) -> None:
        """What an admitted request used beyond its prompt."""
        self._streams[key.name] -= 1
        self._here.charge(key, tokens, usd)
        if self._shared is not None:
            self._shared.charge(key, tokens, usd)
            self._shared.renew(key.name, self._gateway, self._streams[key.name])

    async def keep_leases(self) -> None:
        """Tell the shared limiter again and again what runs here."""
        while self._shared is not None:
            await asyncio.sleep(LEASE_S / 3)
            for name, streams in (+self._streams).items():
                self._shared.renew(name, self._gateway, streams)

    async def _ask(self, key: ApiKey, prompt_tokens: int, streams: int) -> Refusal | None:
        here = self._here.admit(key, prompt_tokens, self._gateway, streams)
        if self._shared is None:
            return here
        counts_it_later = False
        if not self._skips_limiter():
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    answer = await self._shared.admit(key, prompt_tokens, self._gateway, streams)
                self._asks_again_s = None
                return answer
            except Exception as error:
                counts_it_later = isinstance(error, TimeoutError)
                if counts_it_later:
                    self._asks_again_s = time.monotonic() + _SILENCE_S
                logger.warning("the limiter is away (%r); this gateway's own counts decide", error)
        if here is None and not counts_it_later:
            self._shared.charge(key, prompt_tokens, 0.0, requests=1)
        return here

    def _skips_limiter(self) -> bool:
        """The limiter did not answer in time a moment ago. Every now and then one request waits for
        it again, and those that come meanwhile do not."""
        now_s = time.monotonic()
        if self._asks_again_s is None or now_s < self._asks_again_s:
            return self._asks_again_s is not None
        self._asks_again_s = now_s + _SILENCE_S
        return False
