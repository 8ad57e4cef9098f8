"""Many callers share few messages, and each gets its own result."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from apps.eval.calls import journal
from apps.eval.calls.budget import BudgetExhaustedError
from apps.eval.calls.client import complete, connect
from apps.eval.calls.endpoints import openai_endpoint
from apps.eval.calls.lines import Bound
from apps.eval.calls.rate_gate import Limits
from apps.eval.judging.call import Call
from apps.eval.judging.coordinator import Coordinator, RemoteGate, RemoteLedger, Together
from apps.eval.judging.job import Tally
from apps.eval.judging.loop import Caller
from tests.eval.one_run import FAST, PRICES, bound, planned, response, statuses
from tests.eval.scripted_judge import Endpoint, Script, completion, error


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


async def task(coordinator: Coordinator, holder: str, calls: list[Call]) -> Tally:
    """What a Ray task does with its share of the calls."""
    async with connect(openai_endpoint("judge-4", 0.5)) as client:
        caller = Caller(
            ask=lambda call, number: complete(client, call.sent_messages, call.parameters),
            gates={"judge-4": RemoteGate(coordinator, holder, "judge-4")},
            ledger=RemoteLedger(coordinator, holder),
            prices=PRICES,
            persistence=FAST,
            holder=holder,
        )
        return await caller.make(calls)


async def of_judge_4(directory: Path) -> Coordinator:
    coordinator = Coordinator({"judge-4": limits(8)["judge"]}, str(directory), None)
    await coordinator.begin()
    return coordinator


@pytest.mark.parametrize(
    "script",
    [
        Script(answer=lambda model, messages: "I like both."),
        Script(status=400),
        Script(handle=lambda *_: web.Response(text="<html>Sign in</html>")),
    ],
    ids=["unreadable", "rejected", "garbled"],
)
async def test_a_judge_that_one_task_gives_up_is_asked_nothing_more_by_the_others(
    tmp_path: Path, serve, script: Script
) -> None:
    endpoint: Endpoint = serve(script)
    coordinator, calls = await of_judge_4(tmp_path), planned(40)
    first = await task(coordinator, "task-0", calls[::2])
    asked = endpoint.requests.total()
    second = await task(coordinator, "task-1", calls[1::2])
    assert first.lost and asked and endpoint.requests.total() == asked
    assert second.lost["judge-4"].sentence == first.lost["judge-4"].sentence


async def test_a_judge_that_another_task_hears_is_given_up_by_none(tmp_path: Path, serve) -> None:
    """All of a task's own first verdicts may be among the few that cannot be read."""

    def sometimes(request: web.Request, body: dict) -> web.StreamResponse:
        text = body["messages"][1]["content"]
        if "item 1" in text:
            return error(400, None)
        return web.json_response(completion(body, "Hm." if "item 2" in text else "[[A]]", False))

    serve(Script(handle=sometimes))
    coordinator, calls = await of_judge_4(tmp_path), planned(30)
    odd = [call for call in calls if call.question_id[0] in "12" and len(call.question_id) > 1]
    others = [call for call in calls if call not in odd and call.question_id not in "12"]
    assert not (await task(coordinator, "task-0", others)).lost
    tally = await task(coordinator, "task-1", odd)
    assert not tally.lost and (tally.failed, tally.unreadable) == (20, 20)
    assert statuses(tmp_path).count("ok") == len(others)
