"""The life of a chunk of judge calls: gate, reserve, write down, send, store; and again.

Pure asyncio. The gate and the journal are passed in: local objects in tests, actors under Ray.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from apps.common.errors import CriaError
from apps.eval.calls.client import CallFailure, Endpoint, EndpointRefusedError, Reply
from apps.eval.calls.journal import BudgetExhaustedError
from apps.eval.calls.rate_gate import Limits
from apps.eval.judging.call import Call
from apps.eval.judging.parsing import parse
from apps.eval.judging.plan import ask_again
from apps.eval.judging.prices import Price

Ask = Callable[[Call], Awaitable[Reply]]
# This many rejected requests before any success: the request itself is wrong, not one answer.
REJECTIONS_TO_STOP = 5


class Gate(Protocol):
    async def acquire(self, holder: str, tokens: int) -> None: ...
    async def release(
        self,
        holder: str,
        outcome: str,
        unused_tokens: int = 0,
        retry_after_s: float | None = None,
    ) -> None: ...


class Ledger(Protocol):
    async def open_call(self, holder: str, key: str, usd: float) -> int: ...
    async def store(self, record: dict[str, Any], attempt: int) -> None: ...
    async def fail_call(self, key: str, attempt: int, may_be_billed: bool) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Persistence:
    """How hard a chunk tries."""

    max_attempts: int = 10
    max_asks: int = 4
    width: int = 32
    """Calls of this chunk that may wait at the gate, be in flight or be on their way to disk."""
    first_backoff_s: float = 1.0
    max_backoff_s: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All calls of a run and the limits they share."""

    calls: tuple[Call, ...]
    directory: str
    endpoints: dict[str, Endpoint]
    prices: dict[str, Price | None]
    limits: Limits
    persistence: Persistence
    num_tasks: int
    max_usd: float | None


@dataclass(slots=True)
class Tally:
    """What became of a chunk."""

    stored: int = 0
    unreadable: int = 0
    """judgments whose last ask could not be read either"""
    failed: int = 0
    """calls left for the next run"""
    rejected: int = 0
    stopped: str | None = None
    """why the chunk ended early: the budget"""
    last_error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A run's end."""

    tally: Tally
    spent_usd: float
    """US dollars of all runs of the folder"""
    gate: dict[str, float]


OnProgress = Callable[[int, float, dict[str, float]], None]
"""(responses stored in this run, US dollars spent in all runs, the gate's state)"""


async def run_chunk(
    calls: Sequence[Call],
    ask: Ask,
    gate: Gate,
    ledger: Ledger,
    prices: dict[str, Price | None],
    persistence: Persistence,
    holder: str = "local",
) -> Tally:
    """Makes all calls; raises CriaError when no further call can succeed."""
    tally = Tally()
    width = asyncio.Semaphore(persistence.width)

    async def one(call: Call) -> None:
        async with width:
            if tally.stopped is None:
                await _judge(call, ask, gate, ledger, prices, persistence, holder, tally)

    await run_all(one(call) for call in calls)
    return tally


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs all at once; the first error cancels the rest and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        first: BaseException = errors.split(CriaError)[0] or errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def _judge(
    call: Call,
    ask: Ask,
    gate: Gate,
    ledger: Ledger,
    prices: dict[str, Price | None],
    persistence: Persistence,
    holder: str,
    tally: Tally,
) -> None:
    """One judgment: asks until a response can be read, at most `max_asks` times."""
    while True:
        try:
            reply = await _send(call, ask, gate, ledger, prices, persistence, holder, tally)
        except BudgetExhaustedError as error:
            tally.stopped = error.sentence
            return
        if reply is None:
            return
        tally.stored += 1
        status = parse(reply.text, call.fmt, reply.finish_reason, call.nonce).status
        if status == "ok":
            return
        if call.ask + 1 >= persistence.max_asks:
            tally.unreadable += 1
            return
        call = ask_again(call, was_truncated=status == "truncated")


async def _send(
    call: Call,
    ask: Ask,
    gate: Gate,
    ledger: Ledger,
    prices: dict[str, Price | None],
    persistence: Persistence,
    holder: str,
    tally: Tally,
) -> Reply | None:
    """One call until it has a stored response; None if it is left for the next run."""
    price = prices[call.judge]
    bound_usd = price.usd(call.prompt_tokens_bound(), call.max_tokens) if price else 0.0
    estimate_tokens = call.prompt_tokens_estimate() + call.max_tokens
    failures = 0
    while failures < persistence.max_attempts:
        await gate.acquire(holder, estimate_tokens)
        outcome, unused_tokens, wait_s = "cancelled", estimate_tokens, None
        reply, failure, attempt = None, None, 0
        try:
            attempt = await ledger.open_call(holder, call.key, bound_usd)
            started = time.time()
            reply = await ask(call)
            outcome = "ok"
            unused_tokens = estimate_tokens - reply.prompt_tokens - reply.completion_tokens
        except CallFailure as error:
            failure = error
            outcome = "rate_limited" if error.kind == "rate_limited" else "error"
            wait_s = error.retry_after_s
        finally:
            # Before the response is on disk, so that the next call need not wait for that.
            await gate.release(holder, outcome, unused_tokens, wait_s)
        if reply is not None:
            await ledger.store(_record(call, reply, price, started), attempt)
            return reply
        assert failure is not None
        tally.last_error = failure.sentence
        await ledger.fail_call(call.key, attempt, failure.may_be_billed)
        if _is_final(failure, call, tally):
            return None
        failures += outcome == "error"
        await asyncio.sleep(wait_s or _backoff_s(max(1, failures), persistence))
    tally.failed += 1
    return None


def _is_final(failure: CallFailure, call: Call, tally: Tally) -> bool:
    """True if this call cannot succeed; raises if none can."""
    if failure.kind == "fatal":
        raise EndpointRefusedError(
            f"the endpoint refuses {call.judge!r} ({failure.sentence}); check OPENAI_API_KEY, "
            "OPENAI_BASE_URL, the quota and the model's name; what is stored stays stored"
        )
    if failure.kind != "rejected":
        return False
    tally.failed += 1
    tally.rejected += 1
    if not tally.stored and tally.rejected >= REJECTIONS_TO_STOP:
        raise CriaError(
            f"the endpoint rejects every request for {call.judge!r} ({failure.sentence}); mend the "
            "settings it names and run again"
        )
    return True


def _record(call: Call, reply: Reply, price: Price | None, started: float) -> dict[str, Any]:
    tokens = (reply.prompt_tokens, reply.completion_tokens)
    return call.raw_record(
        response_text=reply.text,
        finish_reason=reply.finish_reason,
        usage={"prompt_tokens": tokens[0], "completion_tokens": tokens[1]},
        usd=price.usd(*tokens) if price else 0.0,
        created=started,
        latency_s=round(time.time() - started, 3),
        endpoint_model=reply.endpoint_model,
        fingerprint=reply.fingerprint,
    )


def _backoff_s(failures: int, persistence: Persistence) -> float:
    """Exponential with full jitter (Brooker, "Exponential backoff and jitter", AWS, 2015)."""
    longest = min(persistence.max_backoff_s, persistence.first_backoff_s * 2 ** (failures - 1))
    return random.uniform(0.3, 1.0) * longest
