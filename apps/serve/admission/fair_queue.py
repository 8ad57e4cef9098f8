"""Who is next when more asks than a model can take: start-time fair queueing between keys.

Goyal, Vin and Cheng, "Start-time Fair Queuing", 1996. Every request gets a start tag: the clock, or
where its key's last one ends, whichever is later. The key's end then moves on by the request's
tokens over the key's weight. The lowest start tag is next, and the clock is the tag of the last one
that was let in. With one place, weight 1 and the clock at 0:

    a asks for 100, 100, 100 tokens    start tags 0, 100, 200
    b asks for 10                      start tag 0: it is next, though it came last

When the queue is full, the waiting request with the highest tag gives way to one with a lower one.
"""

import asyncio
import time
from dataclasses import dataclass, field

from apps.serve.engine.protocol import OverloadedError

_SMOOTHING = 0.1
"""weight of the newest interval between two ends, in their moving average"""
MAX_RETRY_AFTER_S = 60.0


@dataclass(slots=True, eq=False)
class Ticket:
    """One request that waits or runs."""

    key: str
    places: int
    """of the model's places, how many it takes"""
    start: float
    """its tag, in tokens by weight"""
    cost: float
    """its tokens over the key's weight"""
    turn: "asyncio.Future[None]" = field(repr=False)


class FairQueue:
    """Belongs to one event loop. `places` may change while it runs."""

    def __init__(self, places: int, max_waiting: int) -> None:
        self.places, self.max_waiting = places, max_waiting
        self._taken = 0
        self._clock = 0.0
        self._ends: dict[str, float] = {}
        """{key: tag at which its last request ends}"""
        self._waiting: list[Ticket] = []
        self._period_s = 1.0
        self._last_end_s: float | None = None

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def ask(self, key: str, weight: float, tokens: int, places: int = 1) -> Ticket:
        """A ticket to wait with, see `turn`. Raises OverloadedError when the queue is full."""
        start, cost = max(self._clock, self._ends.get(key, 0.0)), tokens / weight
        turn = asyncio.get_running_loop().create_future()
        ticket = Ticket(key, min(places, self.places), start, cost, turn)
        if len(self._waiting) >= self.max_waiting and not self._fits(ticket):
            self._make_room_for(ticket)
        self._ends[key] = start + cost
        self._waiting.append(ticket)
        self._admit()
        return ticket

    async def turn(self, ticket: Ticket) -> None:
        """Wait for it; `leave` must follow. Raises OverloadedError when the ticket had to give way
        to others that have used less."""
        try:
            await ticket.turn
        except asyncio.CancelledError:
            if ticket in self._waiting:
                self._withdraw(ticket)
            elif not ticket.turn.cancelled() and ticket.turn.exception() is None:
                self.leave(ticket)
            raise

    def leave(self, ticket: Ticket) -> None:
        """The request has ended, whatever its end."""
        self._taken -= ticket.places
        now_s = time.monotonic()
        if self._waiting and self._last_end_s is not None:
            self._period_s += _SMOOTHING * (now_s - self._last_end_s - self._period_s)
        self._last_end_s = now_s
        self._admit()

    def position(self, ticket: Ticket) -> int | None:
        """How many are let in before it; None once it is in."""
        if ticket not in self._waiting:
            return None
        return sum(other.start < ticket.start for other in self._waiting)

    def retry_after_s(self) -> float:
        """Until as many have ended as wait now."""
        return min(MAX_RETRY_AFTER_S, max(1.0, (len(self._waiting) + 1) * self._period_s))

    def _fits(self, ticket: Ticket) -> bool:
        return not self._waiting and self._taken + ticket.places <= self.places

    def _make_room_for(self, ticket: Ticket) -> None:
        """Raises OverloadedError when it is itself the one that has used most."""
        last = max(self._waiting, key=lambda other: other.start, default=ticket)
        error = OverloadedError(
            f"{len(self._waiting)} requests are waiting already; try again later",
            self.retry_after_s(),
        )
        if last.start <= ticket.start:
            raise error
        self._withdraw(last)
        if not last.turn.done():  # or it was cancelled, and is yet to be told
            last.turn.set_exception(error)

    def _withdraw(self, ticket: Ticket) -> None:
        self._waiting.remove(ticket)
        self._ends[ticket.key] -= ticket.cost

    def _admit(self) -> None:
        while self._waiting:
            ticket = min(self._waiting, key=lambda other: other.start)
            if self._taken + ticket.places > self.places:
                return
            self._waiting.remove(ticket)
            if ticket.turn.done():  # cancelled, and yet to be told
                continue
            self._taken += ticket.places
            self._clock = max(self._clock, ticket.start)
            ticket.turn.set_result(None)
        if not self._taken:
            self._ends = {k: end for k, end in self._ends.items() if end > self._clock}
