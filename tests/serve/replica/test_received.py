"""Every token that an engine generates is counted where it arrives."""

import asyncio
import random
from collections import Counter

import pytest

from apps.serve.answer.generation import _moving
from apps.serve.engine.protocol import Request, SamplingParams
from apps.serve.replica.exchange import Exchange, ReplicaBackend
from apps.serve.replica.replica import ModelReplica
from apps.serve.replica.wire import ReplicaName
from tests.serve.replica.call import Call, ServeHandle
from tests.serve.scripted import ScriptedEngine


class Handle(ServeHandle):
    """A Serve handle to one of several replicas in this process."""

    def __init__(self, rng: random.Random, num_replicas: int) -> None:
        self.rng = rng
        self.engines: list[ScriptedEngine] = []
        self.replicas: list[ModelReplica] = []
        for _ in range(num_replicas):
            self.add()

    def add(self) -> None:
        engine = ScriptedEngine(lambda request: [10] * (len(request.prompt_ids) + 3))
        self.engines.append(engine)
        self.replicas.append(ModelReplica(engine, ReplicaName("app", f"r{len(self.engines)}")))

    def remote(self, payload: bytes, address) -> Call:
        return Call(self.rng.choice(self.replicas).generate(payload, address))


@pytest.mark.parametrize("number", [300, pytest.param(5000, marks=pytest.mark.slow)])
async def test_the_tokens_received_are_those_generated_with_cancels_among_them(number: int) -> None:
    received: Counter[str] = Counter()

    def count(application: str, tokens: int) -> None:
        received[application] += tokens

    rng = random.Random(number)
    exchange, handle = Exchange(count), Handle(rng, 3)
    await exchange.start("127.0.0.1")
    backend = ReplicaBackend(handle, exchange, "app")

    async def one(index: int) -> None:
        request = Request(
            id=f"q{index}", prompt_ids=(5,) * rng.randint(1, 30), params=SamplingParams()
        )
        leaves_after = rng.randint(0, 10) if rng.random() < 0.3 else None
        steps = _moving(backend, request, [])
        async for _ in steps:
            if leaves_after == 0:
                break
            leaves_after = None if leaves_after is None else leaves_after - 1
        await steps.aclose()

    for start in range(0, number, 50):
        await asyncio.gather(*(one(i) for i in range(start, min(number, start + 50))))
    for _ in range(100):
        await asyncio.sleep(0.01)
        generated = sum(sum(engine.steps_of.values()) for engine in handle.engines)
        if received["app"] == generated and not any(e.running for e in handle.engines):
            break
    assert received["app"] == generated > number
    assert not exchange._inboxes
    await exchange.close()
