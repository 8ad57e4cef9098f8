"""The gate and the journal in one process, and how a task reaches both with few messages.

A message to an actor costs about a millisecond of two processes. 64 equal calls that end together
need 256 of them if each call sends its own, and the next calls wait meanwhile; what arrives while
an earlier message is under way therefore goes out as one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from apps.eval.calls.journal import Journal
from apps.eval.calls.rate_gate import Limits, RateGate

Send = Callable[[list[Any]], Awaitable[Sequence[Any]]]
"""Sends items in one message; returns the results of the first few of them, at least one."""


class Desk:
    """The one rate limit and the one budget of a run; lives on one event loop."""

    def __init__(self, limits: Limits, directory: str, max_usd: float | None) -> None:
        self._limits = limits
        self._gate: RateGate | None = None
        self._journal = Journal(directory, max_usd)
        self._gone: set[str] = set()

    async def begin(self) -> None:
        """Takes the folder; returns when it is ours."""
        self._gate = RateGate(self._limits)
        await self._journal.begin()

    async def state(self) -> tuple[int, float, dict[str, float]]:
        """(responses stored in this run, US dollars of all runs, the gate's state)"""
        return (*await self._journal.state(), await self.gate.state())

    @property
    def gate(self) -> RateGate:
        assert self._gate is not None
        return self._gate

    async def acquire(self, holder: str, tokens: Sequence[int]) -> int:
        passed = await self.gate.acquire_some(holder, tokens)
        if holder in self._gone:
            await self.gate.forget(holder)
        return passed

    async def release(self, holder: str, ended: Sequence[tuple[Any, ...]]) -> None:
        for how in ended:
            await self.gate.release(holder, *how)

    async def open_calls(self, holder: str, wanted: Sequence[tuple[str, float]]) -> list[int]:
        attempts = await self._journal.open_calls(holder, wanted)
        if holder in self._gone:  # it died before it could send them
            for attempt, (key, _) in zip(attempts, wanted, strict=False):
                await self._journal.fail_call(key, attempt, may_be_billed=False)
        return attempts

    async def store(self, made: Sequence[tuple[dict[str, Any], int]]) -> None:
        await asyncio.gather(*(self._journal.store(*item) for item in made))

    async def fail_call(self, key: str, attempt: int, may_be_billed: bool) -> None:
        await self._journal.fail_call(key, attempt, may_be_billed)

    async def forget(self, holder: str) -> None:
        """Frees a dead task's places, and charges what it had in flight.

        Its last messages may still be on their way: what they take is given back as it comes.
        """
        self._gone.add(holder)
        await self.gate.forget(holder)
        await self._journal.forget(holder)


class Together:
    """Gathers what many coroutines ask for into one message at a time."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def __call__(self, item: Any) -> Any:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
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
                self._answer(sent, lambda done, _, error=error: done.set_exception(error))
            else:
                self._answer(len(results), lambda done, i, found=results: done.set_result(found[i]))
        self._sender = None

    def _answer(self, count: int, settle: Callable[[asyncio.Future[Any], int], None]) -> None:
        for number, (_, done) in enumerate(self._waiting[:count]):
            if not done.done():  # its coroutine may have been cancelled meanwhile
                settle(done, number)
        del self._waiting[:count]


class DeskGate:
    """The gate of calling.py, at a desk in another process."""

    def __init__(self, desk: Any, holder: str) -> None:
        async def acquire(tokens: list[Any]) -> Sequence[Any]:
            return [None] * await desk.acquire(holder, tokens)

        async def release(ended: list[Any]) -> Sequence[Any]:
            await desk.release(holder, ended)
            return [None] * len(ended)

        self._acquire, self._release = Together(acquire), Together(release)

    async def acquire(self, holder: str, tokens: int) -> None:
        await self._acquire(tokens)

    async def release(
        self,
        holder: str,
        outcome: str,
        unused_tokens: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        await self._release((outcome, unused_tokens, retry_after_s))


class DeskLedger:
    """The ledger of calling.py, at a desk in another process."""

    def __init__(self, desk: Any, holder: str) -> None:
        async def open_calls(wanted: list[Any]) -> Sequence[Any]:
            return await desk.open_calls(holder, wanted)

        async def store(made: list[Any]) -> Sequence[Any]:
            await desk.store(made)
            return [None] * len(made)

        self._desk = desk
        self._open, self._store = Together(open_calls), Together(store)

    async def open_call(self, holder: str, key: str, usd: float) -> int:
        return await self._open((key, usd))

    async def store(self, record: dict[str, Any], attempt: int) -> None:
        await self._store((record, attempt))

    async def fail_call(self, key: str, attempt: int, may_be_billed: bool) -> None:
        await self._desk.fail_call(key, attempt, may_be_billed)
