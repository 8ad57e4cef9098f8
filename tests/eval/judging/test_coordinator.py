"""Many callers share few messages, and each gets its own result."""

import asyncio
from pathlib import Path

import pytest

from apps.eval.calls import journal
from apps.eval.calls.budget import BudgetExhaustedError
from apps.eval.calls.lines import Bound
from apps.eval.calls.rate_gate import Limits
from apps.eval.judging.coordinator import Coordinator, RemoteGate, RemoteLedger, Together
from tests.eval.one_run import bound, response


async def test_what_arrives_meanwhile_goes_out_as_one_message() -> None:
    sent = []

    async def send(items: list[int]) -> list[int]:
        sent.append(items)
        await asyncio.sleep(0.01)
        return [item * 10 for item in items[:5]]

    together = Together(send)
    assert await asyncio.gather(*map(together, range(12))) == [n * 10 for n in range(12)]
    assert [len(items) for items in sent] == [12, 7, 2]
    assert await together(3) == 30


async def test_an_error_reaches_all_who_sent_and_the_next_message_goes_out() -> None:
    async def send(items: list[int]) -> list[int]:
        if 1 in items:
            raise ValueError("no")
        return items

    together = Together(send)
    found = await asyncio.gather(together(1), together(2), return_exceptions=True)
    assert [type(error) for error in found] == [ValueError, ValueError]
    assert await together(3) == 3


def limits(concurrency: int) -> dict[str, list[Limits]]:
    """Those of one judge with one endpoint."""
    return {"judge": [Limits(requests_per_min=6e6, tokens_per_min=6e9, concurrency=concurrency)]}


async def test_a_tight_budget_lets_calls_through_one_by_one_without_a_deadlock(
    tmp_path: Path,
) -> None:
    """Each call may cost $1, costs $0.1 in the end, and $2.05 is there: nine must wait."""
    coordinator = Coordinator(limits(concurrency=8), str(tmp_path), 2.05)
    await coordinator.begin()
    gate, ledger = RemoteGate(coordinator, "t", "judge"), RemoteLedger(coordinator, "t")

    async def one(call: int) -> None:
        number = await gate.acquire("t", 10)
        attempt = await ledger.open_call("t", bound(f"key-{call}", 1.0))
        await gate.release("t", number, "ok")
        await ledger.store(response(f"key-{call}", 0.1), attempt)

    await asyncio.wait_for(asyncio.gather(*map(one, range(10))), 10)
    stored, usd, state = await coordinator.state()
    assert (stored, state["in_flight"]) == (10, 0) and usd == pytest.approx(1.0)
    assert len(journal.read_raw(str(tmp_path))) == 10
    with pytest.raises(BudgetExhaustedError):
        await ledger.open_call("t", bound("dear", 1.2))


async def test_calls_of_a_cheap_judge_pass_those_that_the_budget_has_no_room_for(
    tmp_path: Path,
) -> None:
    coordinator = Coordinator(limits(concurrency=8), str(tmp_path), 1.0)
    await coordinator.begin()
    ledger = RemoteLedger(coordinator, "t")

    async def one(key: str, usd: float, judge: str) -> None:
        attempt = await ledger.open_call("t", Bound(key, usd, judge))
        await ledger.store({**response(key, 0.1), "judge": judge}, attempt)

    asked = [("1", 1.2, "dear"), ("2", 0.3, "cheap"), ("3", 1.1, "dear"), ("4", 0.3, "dear")]
    async with asyncio.timeout(10):
        told = await asyncio.gather(*(one(*call) for call in asked), return_exceptions=True)
    refused = [isinstance(error, BudgetExhaustedError) for error in told]
    assert refused == [True, False, True, False]


async def test_what_a_dead_task_asked_for_last_holds_neither_place_nor_money(tmp_path) -> None:
    """Its messages may arrive after its death was noticed."""
    coordinator = Coordinator(limits(concurrency=1), str(tmp_path), 1.0)
    await coordinator.begin()
    await coordinator.acquire("dead", "judge", [10])
    await coordinator.open_calls("dead", [bound("in flight", 0.4)])
    await coordinator.forget("dead")
    assert await coordinator.acquire("dead", "judge", [10]) == [0]
    await coordinator.open_calls("dead", [bound("never sent", 0.5)])
    await coordinator.store([(response("in flight", 0.1), 0)])
    await asyncio.wait_for(coordinator.acquire("alive", "judge", [10]), 1)
    assert await coordinator.open_calls("alive", [bound("next", 0.6)]) == [0], (
        "0.4 is charged, 0.5 is free"
    )
    stored, usd, state = await coordinator.state()
    assert (stored, state["in_flight"]) == (1, 1) and usd == pytest.approx(0.4)
    assert [record["key"] for record in journal.read_raw(str(tmp_path))] == ["in flight"]
