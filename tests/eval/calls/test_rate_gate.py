"""The gate holds rates and concurrency, yields to 429, and opens the circuit on an outage."""

import asyncio
import time

import pytest

from apps.eval.calls.gate_pool import GatePool
from apps.eval.calls.outage import FAILURES_TO_OPEN, EndpointLostError
from apps.eval.calls.rate_gate import Limits


class Clock:
    """Real time, and jumps."""

    def __init__(self) -> None:
        self.jumped_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.jumped_s


def gate(clock=None, **limits: float) -> GatePool:
    settings = {"requests_per_min": 6e6, "tokens_per_min": 6e9, "concurrency": 1000, **limits}
    settings["concurrency"] = int(settings["concurrency"])
    return GatePool([Limits(**settings)], clock or time.monotonic)


async def granted_within(made: GatePool, calls: int, tokens: int, seconds: float) -> int:
    """How many of `calls` pass the gate within some time when none is released."""
    tasks = [asyncio.create_task(made.acquire("t", tokens)) for _ in range(calls)]
    done, pending = await asyncio.wait(tasks, timeout=seconds)
    for task in pending:
        task.cancel()
    return len(done)


async def test_requests_are_spaced_by_the_rate() -> None:
    passed = await granted_within(gate(requests_per_min=6000), 200, 1, 0.5)
    assert 20 <= passed <= 54


async def test_tokens_hold_the_rate_when_calls_are_large() -> None:
    """60,000 tokens a minute are one call of 100 tokens every 0.1 s, after one second's worth."""
    passed = await granted_within(gate(tokens_per_min=60_000), 200, 100, 0.5)
    assert 11 <= passed <= 20


async def test_calls_in_flight_never_exceed_the_concurrency() -> None:
    made = gate(concurrency=7)
    assert await granted_within(made, 50, 1, 0.1) == 7
    await made.release("t", 0, "ok")
    assert made.state()["in_flight"] <= 7


async def test_a_dead_tasks_calls_are_given_back() -> None:
    made = gate(concurrency=3)
    for _ in range(3):
        await made.acquire("dead", 1)
    await made.forget("dead")
    assert await granted_within(made, 3, 1, 0.5) == 3


async def test_429_pauses_for_retry_after_and_cuts_once_a_pause() -> None:
    clock = Clock()
    made = gate(clock, concurrency=100)
    for _ in range(10):
        await made.acquire("t", 1)
    for _ in range(10):
        await made.release("t", 0, "rate_limited", 0, 30.0)
    state = made.state()
    assert state["window"] == pytest.approx(70.0)
    assert state["requests_per_min"] == pytest.approx(0.7 * 6e6)
    assert await granted_within(made, 1, 1, 0.05) == 0
    clock.jumped_s += 30.1
    assert await granted_within(made, 1, 1, 0.05) == 1


async def test_successes_win_the_window_back() -> None:
    clock = Clock()
    made = gate(clock, concurrency=10)
    await made.acquire("t", 1)
    await made.release("t", 0, "rate_limited", 0, 0.0)
    for _ in range(200):
        clock.jumped_s += 1.0
        await made.acquire("t", 1)
        await made.release("t", 0, "ok")
    assert made.state()["window"] == 10


async def test_a_long_outage_ends_the_run_and_a_short_one_does_not() -> None:
    clock = Clock()
    made = gate(clock, max_outage_s=600)
    await made.acquire("t", 1)
    await made.release("t", 0, "ok")
    for _ in range(FAILURES_TO_OPEN):
        await made.release("t", 0, "error")
    assert await granted_within(made, 1, 1, 0.05) == 0
    waiting = asyncio.create_task(made.acquire("t", 1))
    await asyncio.sleep(0.01)
    clock.jumped_s += 700
    await made.release("t", 0, "error")
    with pytest.raises(EndpointLostError, match="run the same command again"):
        await made.acquire("t", 1)
    with pytest.raises(EndpointLostError):
        await waiting


async def test_an_endpoint_that_never_answered_is_given_up_soon() -> None:
    clock = Clock()
    made = gate(clock, max_outage_s=600)
    clock.jumped_s += 60
    for _ in range(FAILURES_TO_OPEN):
        await made.release("t", 0, "error")
    with pytest.raises(EndpointLostError, match="answered nothing"):
        await made.acquire("t", 1)


async def test_endpoints_of_one_model_share_its_calls_by_their_room() -> None:
    """Two places at the first, one at the second; who is done takes the next call."""
    wide = Limits(requests_per_min=6e6, tokens_per_min=6e9, concurrency=2)
    narrow = Limits(requests_per_min=6e6, tokens_per_min=6e9, concurrency=1)
    pool = GatePool([wide, narrow])
    admitted = [await pool.acquire("t", 1) for _ in range(3)]
    assert sorted(admitted) == [0, 0, 1]
    waiting = [asyncio.create_task(pool.acquire("t", 1)) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    await pool.release("t", 1, "ok")
    assert await asyncio.wait_for(waiting[0], 1) == 1
    await pool.release("t", 0, "ok")
    assert await asyncio.wait_for(waiting[1], 1) == 0
    assert pool.state()["in_flight"] == 3


async def test_an_endpoint_that_is_lost_leaves_its_calls_to_the_others() -> None:
    limits = Limits(requests_per_min=6e6, tokens_per_min=6e9, concurrency=2)
    pool = GatePool([limits, limits])
    admitted = [await pool.acquire("t", 1) for _ in range(2)]
    await pool.release("t", admitted[0], "cancelled", lost="no such model")
    other = 1 - admitted[0]
    assert await asyncio.wait_for(pool.acquire("t", 1), 1) == other
    assert pool.state()["lost_endpoints"] == 1 and pool.lost() == {admitted[0]: "no such model"}
    await pool.release("t", other, "cancelled", lost="no quota")
    with pytest.raises(EndpointLostError, match="no such model; no quota"):
        await pool.acquire("t", 1)


async def test_who_is_cancelled_while_the_last_endpoint_is_lost_is_cancelled() -> None:
    pool = gate(concurrency=1)
    number = await pool.acquire("t", 1)
    waiting = asyncio.create_task(pool.acquire("t", 1))
    await asyncio.sleep(0)
    await pool.release("t", number, "cancelled", lost="no quota")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_model_that_is_given_up_tells_all_who_wait_why() -> None:
    pool = GatePool([Limits(requests_per_min=6e6, tokens_per_min=6e9, concurrency=1)] * 2)
    for _ in range(2):
        await pool.acquire("t", 1)
    waiting = asyncio.create_task(pool.acquire("other", 1))
    await asyncio.sleep(0)
    await pool.give_up("it cannot be read")
    for late in (waiting, pool.acquire("t", 1)):
        with pytest.raises(EndpointLostError, match="it cannot be read"):
            await late
    await pool.release("t", 0, "ok")
    assert pool.state()["in_flight"] == 1 and "lost_endpoints" not in pool.state()
