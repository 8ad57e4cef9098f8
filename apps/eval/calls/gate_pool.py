"""The gates of all endpoints that serve one model.

They share one queue; each takes the next call as soon as it has room. Nothing is dealt out
beforehand, so a fast endpoint gets more calls than a slow one, which holds up its own only. One
that is lost gets no more calls; when all are, or the model itself is given up, whoever waits
learns why.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from apps.eval.calls.outage import EndpointLostError
from apps.eval.calls.rate_gate import Limits, Outcome, RateGate, Waiter


class GatePool:
    """Lets calls through in order of arrival. Single-threaded: lives on one event loop."""

    def __init__(
        self, limits: Sequence[Limits], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._queue: deque[Waiter] = deque()
        self._gates = [
            RateGate(limit, self._queue, number, clock) for number, limit in enumerate(limits)
        ]
        self._longest_wait_s = 0.0
        self._lost: dict[int, str] = {}
        self._given_up: str | None = None
        self._heard: set[Outcome] = set()

    async def acquire(self, holder: str, tokens: int) -> int:
        """Waits until `holder` may send one call of about `tokens`; the number of its endpoint.

        Raises EndpointLostError where none is left.
        """
        if error := self._error():
            raise error
        started_s = self._clock()
        admitted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(Waiter(admitted, holder, tokens))
        self._pump()
        try:
            number = await admitted
        except asyncio.CancelledError:
            # Let through, or told that none is left, and cancelled in the same turn of the loop.
            if not admitted.cancelled() and admitted.exception() is None:
                await self.release(holder, admitted.result(), "cancelled", tokens)
            raise
        self._longest_wait_s = max(self._longest_wait_s, self._clock() - started_s)
        return number

    async def acquire_some(self, holder: str, tokens: Sequence[int]) -> list[int]:
        """Waits for the first call, lets through what else may go now; the endpoints of those."""
        admitted = [await self.acquire(holder, tokens[0])]
        for wanted in tokens[1:]:
            number = next(
                (n for n, gate in enumerate(self._gates) if gate.pass_at_once(holder, wanted)), None
            )
            if number is None:
                break
            admitted.append(number)
        return admitted

    async def release(
        self,
        holder: str,
        number: int,
        outcome: Outcome,
        unused_tokens: int = 0,
        retry_after_s: float | None = None,
        lost: str | None = None,
    ) -> None:
        """Ends a call. `lost` is why its endpoint refuses all others too."""
        self._heard.add(outcome)
        gate = self._gates[number]
        gate.is_closed = gate.is_closed or lost is not None
        try:
            gate.release(holder, outcome, unused_tokens, retry_after_s)
        except EndpointLostError as error:
            lost = error.sentence
        if lost is not None:
            self._close(number, lost)

    def _close(self, number: int, why: str) -> None:
        """Sends nothing there any more; if that was the last, whoever waits is told."""
        self._gates[number].is_closed = True
        self._lost.setdefault(number, why)
        self._tell_waiters()

    async def give_up(self, why: str) -> None:
        """Sends nothing anywhere any more, because of what the model says and not an endpoint."""
        for gate in self._gates:
            gate.is_closed = True
        self._given_up = self._given_up or why
        self._tell_waiters()

    async def heard(self) -> frozenset[Outcome]:
        """The ways in which calls have ended so far, whoever made them."""
        return frozenset(self._heard)

    def lost(self) -> Mapping[int, str]:
        """Why an endpoint gets no more calls, by its number."""
        return {**self._lost}

    def _tell_waiters(self) -> None:
        """Ends their wait where no call can be sent."""
        if error := self._error():
            for waiter in self._queue:
                if not waiter.admitted.done():
                    waiter.admitted.set_exception(error)
            self._queue.clear()

    def _error(self) -> EndpointLostError | None:
        """Why no call can be sent; None while one can."""
        if self._given_up is None and len(self._lost) < len(self._gates):
            return None
        return EndpointLostError(self._given_up or "; ".join(dict.fromkeys(self._lost.values())))

    async def forget(self, holder: str) -> None:
        """Frees what a dead task held."""
        for waiter in [waiter for waiter in self._queue if waiter.holder == holder]:
            self._queue.remove(waiter)
            waiter.admitted.cancel()
        for gate in self._gates:
            gate.forget(holder)

    def state(self) -> dict[str, float]:
        """What the gates have seen together."""
        return {
            **add_up([gate.state() for gate in self._gates]),
            "longest_wait_s": self._longest_wait_s,
            **({"lost_endpoints": float(len(self._lost))} if self._lost else {}),
        }

    def _pump(self) -> None:
        for gate in self._gates:
            gate.pump()


def add_up(states: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Rates, places and counts of several gates; of waits the longest."""
    total: dict[str, float] = {}
    for state in states:
        for name, value in state.items():
            known = total.get(name, 0.0)
            total[name] = max(known, value) if name == "longest_wait_s" else known + value
    return total
