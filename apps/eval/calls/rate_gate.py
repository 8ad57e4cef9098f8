"""One gate for all calls to an endpoint: requests/min, tokens/min and calls in flight.

Requests are spaced evenly, never sent in bursts. Tokens are a bucket that may go into debt and is
corrected by what a call really used. When 429 recur the rate and the number in flight are cut by a
factor and all pause for Retry-After; each success gives a little back (AIMD: Chiu and Jain 1989).
One cut a pause: a burst of 429 for calls sent before the cut says nothing new.

A circuit breaker sits at the same gate, because every outcome passes here: many failures in a row
pause the run for ever longer, and a long outage ends it.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from apps.eval.calls.outage import FAILURES_TO_OPEN, EndpointLostError, Outage

Outcome = Literal["read", "ok", "rate_limited", "error", "cancelled"]
"""read: ok, and what was wanted can be read in it"""

CUT = 0.7
MIN_RATE_SHARE = 0.02
DEFAULT_PAUSE_S = 2.0
CUT_COOLDOWN_S = 5.0
# A lone 429 is jitter at the edge of a window, and only its own call waits. A cut and a pause for
# every one of them halved the throughput at a limit that was configured exactly (measured).
LONE = 5
CATCH_UP_S = 0.01
# The endpoint counts in windows of its own: calls spaced exactly at its limit arrive with jitter,
# and some are refused (7 of 400 on a busy machine).
MARGIN = 0.99
RECENT = 50
MAX_BREAK_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    requests_per_min: float
    tokens_per_min: float
    concurrency: int
    max_outage_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Waiter:
    """A call that wants to go out."""

    admitted: asyncio.Future[int]
    """the number of the gate that let it through"""
    holder: str
    tokens: int
    """prompt and completion, about"""


class RateGate:
    """Takes calls out of a queue that it may share with other endpoints' gates."""

    def __init__(
        self,
        limits: Limits,
        queue: deque[Waiter],
        number: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._queue = queue
        self._number = number
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        self._share = 1.0
        self._window = float(limits.concurrency)
        self._next_request_s = clock()
        self._tokens = limits.tokens_per_min / 60.0
        self._refilled_s = clock()
        self._paused_until_s = clock()
        self._last_cut_s = -1e9
        self._was_limited: deque[bool] = deque(maxlen=RECENT)
        self._outage = Outage(max_s=limits.max_outage_s, last_ok_s=clock())
        self._timer: asyncio.TimerHandle | None = None
        self.is_closed = False
        """lets nothing through any more"""
        self.num_rate_limited = 0
        self.num_errors = 0

    def pass_at_once(self, holder: str, tokens: int) -> bool:
        """Lets a call through if it need not wait."""
        if self._queue or not self._is_open():
            return False
        self._let_through(holder, tokens)
        return True

    def release(
        self,
        holder: str,
        outcome: Outcome,
        unused_tokens: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        """Ends a call. Raises EndpointLostError where there has been no answer for too long."""
        self._in_flight[holder] -= 1
        self._tokens += unused_tokens
        if outcome in ("read", "ok"):
            self._gain()
        elif outcome == "rate_limited":
            self._cut(retry_after_s)
        elif outcome == "error":
            self._count_failure()
        self.pump()

    def forget(self, holder: str) -> None:
        """Frees the places of a dead task."""
        self._in_flight.pop(holder, None)
        self.pump()

    def state(self) -> dict[str, float]:
        return {
            "in_flight": self._in_flight.total(),
            "window": self._window,
            "requests_per_min": self._limits.requests_per_min * self._share,
            "rate_limited": self.num_rate_limited,
            "errors": self.num_errors,
        }

    def pump(self) -> None:
        """Lets through what may go now, and comes back when the next may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self._has_place():
            wait_s = self._wait_s()
            if wait_s > 0:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self.pump)
                return
            waiter = self._queue.popleft()
            if not waiter.admitted.done():
                self._let_through(waiter.holder, waiter.tokens)
                waiter.admitted.set_result(self._number)

    def _is_open(self) -> bool:
        return self._has_place() and self._wait_s() <= 0

    def _has_place(self) -> bool:
        return not self.is_closed and self._in_flight.total() < int(self._window)

    def _let_through(self, holder: str, tokens: int) -> None:
        self._in_flight[holder] += 1
        self._tokens -= tokens
        interval_s = 60.0 / (self._limits.requests_per_min * self._share * MARGIN)
        # A late pump may catch up, so that the jitter of timers costs no throughput.
        latest_s = self._clock() - max(interval_s, CATCH_UP_S)
        self._next_request_s = max(self._next_request_s, latest_s) + interval_s

    def _wait_s(self) -> float:
        now = self._clock()
        per_s = self._limits.tokens_per_min * self._share / 60.0
        self._tokens = min(self._tokens + (now - self._refilled_s) * per_s, per_s)
        self._refilled_s = now
        until_token_s = -self._tokens / per_s if self._tokens < 0 else 0.0
        return max(self._paused_until_s - now, self._next_request_s - now, until_token_s, 0.0)

    def _gain(self) -> None:
        self._was_limited.append(False)
        self._outage.end(self._clock())
        self._window = min(self._window + 1.0 / self._window, float(self._limits.concurrency))
        self._share = min(self._share + 0.004, 1.0)

    def _cut(self, retry_after_s: float | None) -> None:
        self.num_rate_limited += 1
        self._was_limited.append(True)
        if sum(self._was_limited) < LONE:
            return
        now = self._clock()
        pause_s = DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s
        self._paused_until_s = max(self._paused_until_s, now + pause_s)
        self._check_outage(self.num_rate_limited)
        if now - self._last_cut_s < max(pause_s, CUT_COOLDOWN_S):
            return
        self._last_cut_s = now
        self._window = max(1.0, self._window * CUT)
        self._share = max(MIN_RATE_SHARE, self._share * CUT)

    def _count_failure(self) -> None:
        self.num_errors += 1
        self._outage.failures_in_row += 1
        self._check_outage(self._outage.failures_in_row)
        breaks, others = divmod(self._outage.failures_in_row, FAILURES_TO_OPEN)
        if not others:
            self._paused_until_s = self._clock() + min(MAX_BREAK_S, 2.0**breaks)

    def _check_outage(self, failures: int) -> None:
        now_s = max(self._paused_until_s, self._clock())
        if (outage_s := self._outage.too_long_s(now_s, failures)) is not None:
            raise EndpointLostError(
                f"the endpoint has answered nothing for {outage_s:.0f} s ({failures} calls "
                "failed in a row or were rate-limited); what is stored stays stored: run the same "
                "command again when the endpoint is back"
            )
