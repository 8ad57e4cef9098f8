"""The gates and the journal in one process, and how a task reaches both with few messages.

A message to an actor costs about a millisecond of two processes. 64 equal calls that end together
need 256 of them if each call sends its own, and the next calls wait meanwhile. What arrives while
an earlier message is under way therefore goes out as one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from apps.eval.calls.budget import BudgetExhaustedError
from apps.eval.calls.gate_pool import GatePool, add_up
from apps.eval.calls.journal import Journal
from apps.eval.calls.lines import Bound, ResponseLine
from apps.eval.calls.rate_gate import Limits, Outcome

Item = TypeVar("Item")
Result = TypeVar("Result")
Ended = tuple[int, Outcome, int, float | None, str | None]
"""how a call ended: what GatePool.release is told beside the holder"""


class Coordinator:
    """The rate limits and the one budget of a run; lives on one event loop.

    `limits` holds, per judge, those of each of its endpoints.
    """

    def __init__(
        self, limits: Mapping[str, Sequence[Limits]], directory: str, max_usd: float | None
    ) -> None:
        self._limits = limits
        self._pools: dict[str, GatePool] = {}
        self._journal = Journal(directory, max_usd)
        self._gone: set[str] = set()

    async def begin(self) -> None:
        """Takes the folder; returns when it is ours."""
        self._pools = {judge: GatePool(limits) for judge, limits in self._limits.items()}
        await self._journal.begin()

    async def state(self) -> tuple[int, float, dict[str, float]]:
        """(responses stored in this run, US dollars of all runs, the gates' state)"""
        gates = add_up([pool.state() for pool in self._pools.values()])
        return (*await self._journal.state(), gates)

    async def acquire(self, holder: str, judge: str, tokens: Sequence[int]) -> list[int]:
        admitted = await self._pools[judge].acquire_some(holder, tokens)
        if holder in self._gone:
            await self._pools[judge].forget(holder)
        return admitted

    async def release(self, holder: str, judge: str, ended: Sequence[Ended]) -> None:
        for how in ended:
            await self._pools[judge].release(holder, *how)

    async def give_up(self, judge: str, why: str) -> None:
        """Lets no task ask a judge any more."""
        await self._pools[judge].give_up(why)

    async def heard(self, judge: str) -> frozenset[Outcome]:
        """The ways in which calls of a judge have ended so far, in any task."""
        return await self._pools[judge].heard()

    async def lost(self) -> dict[str, Mapping[int, str]]:
        """By judge: why its endpoints get no more calls, by number."""
        return {judge: lost for judge, pool in self._pools.items() if (lost := pool.lost())}

    async def open_calls(self, holder: str, wanted: Sequence[Bound]) -> list[int]:
        attempts = await self._journal.open_calls(holder, wanted)
        if holder in self._gone:  # it died before it could send them
            for attempt, bound in zip(attempts, wanted, strict=False):
                await self._journal.fail_call(bound.key, attempt, may_be_billed=False)
        return attempts

    async def store(self, made: Sequence[tuple[ResponseLine, int]]) -> None:
        await asyncio.gather(*(self._journal.store(*item) for item in made))

    async def fail_call(self, key: str, attempt: int, may_be_billed: bool) -> None:
        await self._journal.fail_call(key, attempt, may_be_billed)

    async def forget(self, holder: str) -> None:
        """Frees a dead task's places, and charges what it had in flight.

        Its last messages may still be on their way: what they take is given back as it comes.
        """
        self._gone.add(holder)
        for pool in self._pools.values():
            await pool.forget(holder)
        await self._journal.forget(holder)


class Together(Generic[Item, Result]):
    """Gathers what many coroutines ask for into one message at a time.

    `send` returns the results of the first few items, at least one; the others go out again.
    """

    def __init__(self, send: Callable[[list[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._send = send
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._sender is None:
            self._sender = asyncio.create_task(self._run())
        return await done

    async def _run(self) -> None:
        while self._waiting:
            sent = len(self._waiting)
            try:
                results = await self._send([item for item, _ in self._waiting])
            except Exception as error:
                for done in self._take(sent):
                    if not done.done():  # its coroutine may have been cancelled meanwhile
                        done.set_exception(error)
            else:
                for done, result in zip(self._take(len(results)), results, strict=True):
                    if not done.done():
                        done.set_result(result)
        self._sender = None

    def _take(self, count: int) -> list[asyncio.Future[Result]]:
        taken = [done for _, done in self._waiting[:count]]
        del self._waiting[:count]
        return taken


class RemoteGate:
    """The gate of one judge, for loop.py, at a coordinator in another process."""

    def __init__(self, coordinator: "Coordinator", holder: str, judge: str) -> None:
        async def acquire(tokens: list[int]) -> Sequence[int]:
            return await coordinator.acquire(holder, judge, tokens)

        async def release(ended: list[Ended]) -> Sequence[None]:
            await coordinator.release(holder, judge, ended)
            return [None] * len(ended)

        self._acquire, self._release = Together(acquire), Together(release)
        self._coordinator, self._judge = coordinator, judge

    async def acquire(self, holder: str, tokens: int) -> int:
        return await self._acquire(tokens)

    async def release(
        self,
        holder: str,
        number: int,
        outcome: Outcome,
        unused_tokens: int = 0,
        retry_after_s: float | None = None,
        lost: str | None = None,
    ) -> None:
        await self._release((number, outcome, unused_tokens, retry_after_s, lost))

    async def give_up(self, why: str) -> None:
        await self._coordinator.give_up(self._judge, why)

    async def heard(self) -> frozenset[Outcome]:
        return await self._coordinator.heard(self._judge)


class RemoteLedger:
    """The ledger of loop.py, at a coordinator in another process."""

    def __init__(self, coordinator: "Coordinator", holder: str) -> None:
        async def open_calls(wanted: list[Bound]) -> Sequence[int | BudgetExhaustedError]:
            try:
                return await coordinator.open_calls(holder, wanted)
            except BudgetExhaustedError as error:
                return [error]  # of the first one: others may cost less

        async def store(made: list[tuple[ResponseLine, int]]) -> Sequence[None]:
            await coordinator.store(made)
            return [None] * len(made)

        self._coordinator = coordinator
        self._store = Together(store)
        # Of each judge by itself, so that a cheap one waits for no room that a dear one needs.
        self._open = defaultdict[str, Together[Bound, int | BudgetExhaustedError]](
            lambda: Together(open_calls)
        )

    async def open_call(self, holder: str, bound: Bound) -> int:
        attempt = await self._open[bound.judge](bound)
        if isinstance(attempt, BudgetExhaustedError):
            raise attempt
        return attempt

    async def store(self, record: ResponseLine, attempt: int) -> None:
        await self._store((record, attempt))

    async def fail_call(self, key: str, attempt: int, may_be_billed: bool) -> None:
        await self._coordinator.fail_call(key, attempt, may_be_billed)
