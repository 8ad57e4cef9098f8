"""What a replica remembers of an answer that two gateways ask for."""

import asyncio

from apps.serve.engine.protocol import Request, SamplingParams, Step
from apps.serve.replica.kept import KeptAnswers, request_digest
from apps.serve.replica.replica import ModelReplica
from apps.serve.replica.wire import ReplicaName, StepReceiver, encode_request
from tests.serve.scripted import ScriptedEngine


def attempt(name: str, *generated: int) -> Request:
    return Request(
        id=f"chatcmpl-1-0.{name}",
        prompt_ids=(5,),
        params=SamplingParams(max_tokens=40),
        generated_ids=generated,
    )


def test_an_attempt_that_a_lost_gateway_left_running_adds_nothing_to_the_next() -> None:
    answers, first, second = KeptAnswers(), attempt("a1"), attempt("b2", 7)
    assert answers.begin(first) is None
    answers.add(Step(first.id, (7,)))
    assert answers.begin(second) == first.id
    answers.add(Step(first.id, (8,)))
    answers.add(Step(second.id, (8,)))
    answers.add(Step(second.id, (9,), finish_reason="stop"))
    kept = answers.find("chatcmpl-1-0", request_digest(first))
    assert kept is not None and kept.token_ids == [7, 8, 9]
    assert answers.begin(attempt("c3")) is None, "the one before has come to its end"


async def test_the_next_attempt_frees_the_slot_of_the_one_before() -> None:
    class Gateway:
        silence_timeout_s = 5.0
        on_accept = on_step = on_silence = on_sound = staticmethod(lambda *_: None)

    engine = ScriptedEngine(lambda request: list(range(10, 40)), step_s=0.02)
    replica = ModelReplica(engine, ReplicaName("app", "id"))
    lost, new = StepReceiver(Gateway()), StepReceiver(Gateway())
    addresses = [await receiver.start("127.0.0.1") for receiver in (lost, new)]
    calls = [
        asyncio.create_task(replica.generate(encode_request(attempt("a1")), addresses[0])),
    ]
    await asyncio.sleep(0.2)
    calls.append(
        asyncio.create_task(replica.generate(encode_request(attempt("b2", 10)), addresses[1]))
    )
    await asyncio.sleep(0.1)
    assert list(engine.running) == [attempt("b2").id]
    assert await asyncio.gather(*calls) == [None, None]
    for receiver in (lost, new):
        await receiver.close()
