"""Replicas that are there and say nothing, as a frozen process does."""

import asyncio
import time
from typing import Any

import pytest

from apps.serve.answer.generation import _moving
from apps.serve.engine.protocol import Request, SamplingParams
from apps.serve.replica import wire
from apps.serve.replica.exchange import SILENT_REPLICAS, Exchange, ReplicaBackend
from apps.serve.replica.kept import sequence_id
from apps.serve.replica.replica import ModelReplica
from apps.serve.replica.wire import ReplicaName
from tests.serve.replica.call import Call, ServeHandle
from tests.serve.scripted import ScriptedEngine

BOUND_S = 0.4
ANSWER = [*range(10, 50), 1]


class Replica:
    """One that can be frozen: its calls neither begin nor end, and nothing leaves it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.engine = ScriptedEngine(lambda request: ANSWER[:-1], 0.002)
        self.is_frozen = False
        self._replica = ModelReplica(self.engine, ReplicaName("app", name))

    async def generate(self, payload: bytes, address: Any) -> Any:
        while self.is_frozen:
            await asyncio.sleep(0.01)
        return await self._replica.generate(payload, address)

    @property
    def _sender(self) -> wire.StepSender:
        (task,) = self._replica._senders.values()
        return task.result()

    def freeze(self) -> None:
        self.is_frozen = True
        for task in self._sender._tasks[:2]:
            task.cancel()

    def thaw(self) -> None:
        self.is_frozen = False
        self._sender._tasks[:2] = [
            asyncio.create_task(self._sender._write(self._sender._writer)),
            asyncio.create_task(self._sender._beat(self._sender._writer)),
        ]


class Handle(ServeHandle):
    """A Serve handle that takes the first replica, unless it is known to be silent."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas
        self.calls: list[Call] = []

    def remote(self, payload: bytes, address: Any) -> Call:
        awake = [r for r in self.replicas if r.name not in SILENT_REPLICAS]
        self.calls.append(Call(awake[0].generate(payload, address)))
        return self.calls[-1]


@pytest.fixture
async def link(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire, "HEARTBEAT_S", BOUND_S / 10)
    monkeypatch.setattr(wire, "_WATCH_S", BOUND_S / 10)
    exchange = Exchange()
    exchange.silence_timeout_s = BOUND_S
    await exchange.start("127.0.0.1")
    replicas = [Replica("first"), Replica("second")]
    yield ReplicaBackend(Handle(replicas), exchange, "app"), *replicas
    await exchange.close()
    SILENT_REPLICAS.clear()


def request(name: str) -> Request:
    return Request(id=name, prompt_ids=(5,) * 9, params=SamplingParams())


async def rest(steps: Any) -> list[int]:
    return [token async for step in steps for token in step.token_ids]


async def test_requests_of_a_silent_replica_go_on_elsewhere_from_their_last_token(link) -> None:
    backend, first, second = link
    streams = [_moving(backend, request(f"r{i}"), []) for i in range(3)]
    begun = [[(await anext(stream)).token_ids[0] for _ in range(5)] for stream in streams]
    first.freeze()
    async with asyncio.timeout(10 * BOUND_S):
        ended = await asyncio.gather(*map(rest, streams))
    assert [a + b for a, b in zip(begun, ended, strict=True)] == [ANSWER] * 3
    assert all(len(r.generated_ids) >= 5 for r in second.engine.requests)


async def test_requests_of_a_silent_engine_go_on_elsewhere_though_its_replica_speaks(link) -> None:
    """And though new requests come to it, which it takes in, as long as nobody knows."""
    backend, first, _ = link
    first.engine.step_s = 0.05
    stream = _moving(backend, request("r"), [])
    begun = [(await anext(stream)).token_ids[0]]
    first.engine.silent, first.engine.step_s = True, 60.0
    late = asyncio.create_task(rest(_moving(backend, request("late"), [])))
    async with asyncio.timeout(10 * BOUND_S):
        assert begun + await rest(stream) == ANSWER and await late == ANSWER
    assert {"first"} == SILENT_REPLICAS
    num_before = len(first.engine.requests)
    assert await rest(_moving(backend, request("next"), [])) == ANSWER
    assert len(first.engine.requests) == num_before
    first.engine.silent, first.engine.step_s = False, 0.002
    await asyncio.sleep(BOUND_S)
    assert not SILENT_REPLICAS


async def test_a_request_that_a_silent_replica_never_took_in_goes_elsewhere(link) -> None:
    backend, first, second = link
    await anext(_moving(backend, request("known"), []))
    first.freeze()
    async with asyncio.timeout(10 * BOUND_S):
        assert await rest(_moving(backend, request("late"), [])) == ANSWER
    late = [r for r in second.engine.requests if sequence_id(r.id) == "late"]
    assert len(late) == 1 and late[0].id not in {r.id for r in first.engine.requests}


async def test_what_a_silent_replica_takes_in_later_is_stopped_and_not_by_ray(link) -> None:
    backend, first, _ = link
    submit = first.engine.submit

    async def slowly(*args: Any) -> None:
        await asyncio.sleep(0.05)
        await submit(*args)
        await asyncio.sleep(0)  # for it to begin

    known = _moving(backend, request("known"), [])
    await anext(known)
    first.freeze()
    first.engine.submit = slowly
    answers = await asyncio.gather(rest(known), rest(_moving(backend, request("late"), [])))
    assert [len(answer) for answer in answers] == [len(ANSWER) - 1, len(ANSWER)]
    of_first = backend._handle.calls[:2]
    assert not any(call._task.done() for call in of_first), "cancelled, or what else"
    first.engine.step_s = 5.0
    first.thaw()
    async with asyncio.timeout(2):
        await asyncio.gather(*(call._task for call in of_first))
    assert not first.engine.running
    assert set(map(sequence_id, first.engine.cancelled)) <= {"known", "late"}


async def test_a_step_that_takes_long_is_no_silence(link) -> None:
    backend, first, second = link
    first.engine.step_s = 3 * BOUND_S
    params = SamplingParams(max_tokens=2)
    long = Request(id="long", prompt_ids=(5,), params=params)
    assert await rest(_moving(backend, long, [])) == ANSWER[:2]
    assert not second.engine.requests and not SILENT_REPLICAS


async def test_a_replica_that_speaks_again_is_used_again_and_stops_what_went_elsewhere(
    link,
) -> None:
    backend, first, _ = link
    first.engine.step_s = 0.05
    stream = _moving(backend, request("r"), [])
    await anext(stream)
    first.freeze()
    assert len(await rest(stream)) == len(ANSWER) - 1
    assert {"first"} == SILENT_REPLICAS
    first.thaw()
    await asyncio.sleep(BOUND_S)
    assert not SILENT_REPLICAS
    assert [*map(sequence_id, first.engine.cancelled)] == ["r"] and not first.engine.running
    assert await rest(_moving(backend, request("next"), [])) == ANSWER
    assert sequence_id(first.engine.requests[-1].id) == "next"


async def test_a_pause_of_the_gateway_is_no_silence_of_its_replicas(link) -> None:
    backend, _, second = link
    stream = _moving(backend, request("r"), [])
    begun = [(await anext(stream)).token_ids[0]]
    time.sleep(2 * BOUND_S)
    assert begun + await rest(stream) == ANSWER
    assert not second.engine.requests and not SILENT_REPLICAS


class SendsTwice(Handle):
    """A Serve handle that lost sight of its first call."""

    def remote(self, payload: bytes, address: Any) -> Call:
        calls = [Call(replica.generate(payload, address)) for replica in self.replicas]
        return calls[-1]


@pytest.mark.parametrize("same", [False, True])
async def test_a_call_that_serve_sends_twice_is_answered_once(link, same: bool) -> None:
    backend, first, second = link
    backend._handle = SendsTwice([first, first if same else second])
    answers = await asyncio.gather(
        *(rest(_moving(backend, request(f"r{i}"), [])) for i in range(3))
    )
    assert answers == [ANSWER] * 3
    assert len(first.engine.requests) == 3
    assert len(second.engine.cancelled) == (0 if same else 3)
    assert not first.engine.running and not second.engine.running
