import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.serve.engine.protocol import (
    EngineDeadError,
    Grammar,
    Request,
    RequestError,
    SamplingParams,
    Step,
    TokenLogprob,
)
from apps.serve.replica.exchange import Exchange, ReplicaBackend, ReplicaDeadError, ReplicaLostError
from apps.serve.replica.replica import ModelReplica
from apps.serve.replica.wire import (
    ReplicaName,
    decode_request,
    decode_steps,
    encode_request,
    encode_steps,
)
from tests.serve.replica.call import Call, ServeHandle
from tests.serve.scripted import ScriptedEngine

ids = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)
logprob = st.floats(-100, 0)
top = st.lists(st.tuples(st.integers(0, 1000), logprob), max_size=3).map(tuple)


@given(prompt=ids, generated=ids, bias=st.dictionaries(st.integers(0, 999), logprob, max_size=3))
def test_a_request_survives_the_wire(prompt: tuple, generated: tuple, bias: dict) -> None:
    params = SamplingParams(
        seed=-(2**63), logit_bias=bias, stop_token_ids=(1, 2), grammar=Grammar(kind="json_object")
    )
    request = Request(id="é", prompt_ids=prompt, params=params, generated_ids=generated)
    assert decode_request(encode_request(request)) == request


@given(
    st.lists(
        st.builds(
            Step,
            st.text(max_size=5),
            ids,
            st.lists(st.builds(TokenLogprob, logprob, top), max_size=2).map(tuple),
            st.sampled_from([None, "stop", "length"]),
            st.integers(0, 4096),
            st.text(max_size=5),
            st.lists(st.builds(TokenLogprob, logprob, top), max_size=2).map(tuple),
        )
    )
)
def test_steps_survive_the_wire(steps: list[Step]) -> None:
    assert decode_steps(orjson.loads(encode_steps(steps))) == steps


class Handle(ServeHandle):
    """A Serve handle to one replica in this process."""

    def __init__(self, replica: ModelReplica) -> None:
        self._replica = replica
        self.calls: list[Call] = []

    def remote(self, payload: bytes, address) -> Call:
        self.calls.append(Call(self._replica.generate(payload, address)))
        return self.calls[-1]


@pytest.fixture
async def link():
    exchange = Exchange()
    await exchange.start("127.0.0.1")
    engine = ScriptedEngine(lambda request: list(range(10, 10 + len(request.prompt_ids))), 0.002)
    handle = Handle(ModelReplica(engine, ReplicaName("app", "one")))
    yield ReplicaBackend(handle, exchange, "app"), engine, handle
    await exchange.close()


def request(name: str, length: int = 5) -> Request:
    return Request(id=name, prompt_ids=(5,) * length, params=SamplingParams())


async def collect(backend: ReplicaBackend, name: str, length: int) -> list[int]:
    return [t async for s in backend.steps(request(name, length), []) for t in s.token_ids]


async def test_many_requests_share_one_connection_and_keep_their_order(link) -> None:
    backend, engine, _ = link
    lengths = list(range(1, 40))
    answers = await asyncio.gather(*(collect(backend, f"r{n}", n) for n in lengths))
    assert answers == [[*range(10, 10 + n), 1] for n in lengths]
    assert not engine.running


async def test_leaving_a_request_frees_its_slot_within_a_step(link) -> None:
    backend, engine, _ = link
    steps = backend.steps(request("left", 400), [])
    await anext(steps)
    await steps.aclose()
    await asyncio.sleep(0.02)
    assert engine.cancelled == ["left"] and not engine.running


async def test_leaving_before_the_first_token_frees_the_slot_too(link) -> None:
    backend, engine, _ = link
    engine.step_s = 0.2
    first = asyncio.ensure_future(anext(backend.steps(request("early"), [])))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0.05)
    assert not engine.running


async def test_a_gateway_that_vanishes_frees_all_its_slots(link) -> None:
    backend, engine, _ = link
    streams = [backend.steps(request(f"g{n}", 300), []) for n in range(3)]
    for stream in streams:
        await anext(stream)
    (connection,) = {inbox.connection for inbox in backend._exchange._inboxes.values()}
    connection._writer.transport.abort()
    await asyncio.sleep(0.05)
    assert not engine.running
    with pytest.raises(ReplicaLostError):
        async for _ in streams[0]:
            pass


async def test_a_refusal_arrives_as_the_error_it_is(link) -> None:
    backend, engine, _ = link
    with pytest.raises(RequestError, match="context") as caught:
        await anext(backend.steps(request("long", 600), []))
    assert caught.value.code == "context_length_exceeded"

    async def dead(*_: object) -> None:
        raise EngineDeadError("out of memory")

    engine.submit = dead
    with pytest.raises(ReplicaDeadError, match="out of memory"):
        await anext(backend.steps(request("dead"), []))


async def test_a_call_that_ends_while_it_is_submitted_leaves_nothing_behind(link) -> None:
    backend, engine, handle = link

    async def stuck(*_: object) -> None:
        await asyncio.sleep(60)

    engine.submit = stuck
    first = asyncio.ensure_future(anext(backend.steps(request("early"), [])))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0.05)
    (sender,) = [task.result() for task in handle._replica._senders.values()]
    assert not sender._done


async def test_nobody_without_the_secret_can_send_steps(link) -> None:
    backend, _, _ = link
    host, port, _secret = backend._exchange.address
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"\x00\x00\x00\x05wrong")
    assert await reader.read() == b""
    writer.close()


async def test_a_gateway_that_left_while_it_was_connected_to_gets_no_request(link) -> None:
    backend, _, handle = link
    await collect(backend, "first", 1)
    (sender,) = [task.result() for task in handle._replica._senders.values()]
    sender._writer.transport.abort()
    await asyncio.sleep(0.05)
    with pytest.raises(ConnectionError):
        sender.open("second")
    assert await collect(backend, "third", 1) == [10, 1], "through a connection of its own"
