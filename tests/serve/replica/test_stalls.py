"""No single client can hold up the others: over real sockets, beside a stream that must flow."""

import asyncio
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import pytest

from apps.serve.config import Limits, ModelConfig
from apps.serve.model.served import load_model
from tests.serve.api import Api, LiveServer
from tests.serve.models import write_text_files
from tests.serve.scripted import ScriptedEngine

STEP_S = 0.002
LIMIT_S = 6.0  # for a machine that others use; without the bounds it takes 10 to 20 s
MEGABYTES = (4 << 20) - 4096
HEADERS = {"content-type": "application/json"}


def chat(**fields: object) -> bytes:
    messages = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": "scripted", "messages": messages, **fields}).encode()


def messages(*contents: object) -> bytes:
    return chat(messages=[{"role": "user", "content": content} for content in contents])


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PROPERTIES = {f"p{i}": {"type": "string"} for i in range(1000)}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": PROPERTIES}}}
ATTACKS = {
    "one long word": messages("e" * MEGABYTES),
    "spaces": messages(" " * MEGABYTES),
    "control tokens": messages("<|im_end|>" * (MEGABYTES // 10)),
    "many messages": messages(*["x"] * 4096),
    "many parts": messages(*[[{"type": "text", "text": ""}] * 256] * 500),
    "many wrong parts": messages(*[[{"type": "text", "text": 1}] * 256] * 400),
    "many calls": chat(messages=[{"role": "assistant", "tool_calls": [CALL] * 128}] * 250),
    "many biases": chat(logit_bias={str(i): 1 for i in range(300_000)}),
    "a deep schema": b'{"model": "scripted", "tools": ' + b'{"a":' * 900 + b"1" + b"}" * 901,
    "many large tools": chat(tools=[TOOL] * 60, tool_choice="required"),
    "huge numbers": chat(n=10**18, max_tokens=10**18, top_logprobs=10**18, seed=10**400),
    "a bomb of a pattern": chat(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"pattern": "(a{1,9999}){9999}"}},
        }
    ),
}  # fmt: skip


@pytest.fixture
def live(api_saying) -> Iterator[LiveServer]:
    api: Api = api_saying("word " * 40, step_s=STEP_S)
    with LiveServer(api) as server:
        yield server


@asynccontextmanager
async def a_stream_that_flows(http: aiohttp.ClientSession) -> AsyncIterator[None]:
    """Fails when the stream pauses for LIMIT_S while the block runs."""
    pauses: list[float] = []

    async def read() -> None:
        async with http.post(
            "/v1/chat/completions", data=chat(stream=True), headers=HEADERS
        ) as one:
            last = time.monotonic()
            async for _ in one.content:
                pauses.append(time.monotonic() - last)
                last = time.monotonic()

    reading = asyncio.create_task(read())
    while not pauses:
        await asyncio.sleep(STEP_S)
    yield
    await reading
    assert max(pauses) < LIMIT_S and len(pauses) > 200


@pytest.mark.parametrize("body", ATTACKS.values(), ids=ATTACKS)
async def test_a_hostile_body_neither_fails_nor_stalls_the_server(live, body: bytes) -> None:
    async with aiohttp.ClientSession(live.url) as http, a_stream_that_flows(http):
        async with http.post(
            "/v1/chat/completions", data=io.BytesIO(body), headers=HEADERS
        ) as response:
            error = (await response.json()).get("error", {})
        assert response.status in (200, 400), error


async def test_tokenizing_megabytes_stalls_nobody(api_saying, tmp_path) -> None:
    folder = write_text_files(tmp_path)
    long_context = {"model_type": "llama", "max_position_embeddings": 8 << 20}
    (folder / "config.json").write_text(json.dumps(long_context))
    config = ModelConfig(name="scripted", path=str(folder))
    api = Api(load_model(config), api_saying("word " * 40, step_s=STEP_S).engine)
    body = messages("some words " * (MEGABYTES // 11))
    with LiveServer(api) as server:
        async with (
            aiohttp.ClientSession(server.url) as http,
            a_stream_that_flows(http),
            http.post("/v1/chat/completions", data=io.BytesIO(body), headers=HEADERS) as response,
        ):
            error = (await response.json())["error"]
    assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize("prompt", [["x"] * 100_000, [["x"]] * 300_000, [5] * (1 << 20)])
async def test_a_hostile_prompt_neither_fails_nor_stalls_the_server(live, prompt: list) -> None:
    body = json.dumps({"model": "scripted", "prompt": prompt}).encode()
    async with (
        aiohttp.ClientSession(live.url) as http,
        a_stream_that_flows(http),
        http.post("/v1/completions", data=io.BytesIO(body), headers=HEADERS) as response,
    ):
        assert response.status == 400


async def test_a_body_of_100_mb_is_refused_before_it_is_sent(live) -> None:
    host, port = live.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n")
    assert b" 413 " in await asyncio.wait_for(reader.readline(), LIMIT_S)
    writer.close()


async def test_clients_that_never_finish_their_requests_hold_up_nobody(live) -> None:
    host, port = live.url.removeprefix("http://").split(":")
    writers = []
    for _ in range(100):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{")
        writers.append(writer)
    async with aiohttp.ClientSession(live.url) as http, a_stream_that_flows(http):
        pass
    for writer in writers:
        writer.close()


async def test_a_client_that_reads_nothing_holds_up_neither_the_engine_nor_others(live) -> None:
    host, port = live.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1)
    body = chat(stream=True, n=16, logprobs=True, top_logprobs=20)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with aiohttp.ClientSession(live.url) as http, a_stream_that_flows(http):
        while len(live.api.engine.requests) < 17 or live.api.engine.running:
            await asyncio.sleep(STEP_S)
    writer.close()


async def test_a_connection_that_is_cut_frees_its_slots_within_a_few_steps(live) -> None:
    host, port = live.url.removeprefix("http://").split(":")
    engine = live.api.engine
    for attempt in range(20):
        _, writer = await asyncio.open_connection(host, int(port))
        body = chat(stream=attempt % 2 == 0, n=4)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        while len(engine.running) < 4:
            await asyncio.sleep(STEP_S / 10)
        await asyncio.sleep(STEP_S * attempt / 10)  # with the first token, too
        writer.transport.abort()
        while engine.running:
            await asyncio.sleep(STEP_S / 10)
        assert len(engine.cancelled) == 4 * (attempt + 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_vanishes_costs_one_more_step_at_most(api_saying, stream) -> None:
    step_s = 0.2
    api: Api = api_saying("word " * 40, step_s=step_s)
    with LiveServer(api) as server:
        async with aiohttp.ClientSession(server.url) as http:
            body = chat(stream=stream, n=4)
            asking = http.post("/v1/chat/completions", data=body, headers=HEADERS)
            task = asyncio.ensure_future(asking.__aenter__())
            while len(api.engine.steps_of) < 4:
                await asyncio.sleep(step_s / 10)
            if not task.cancel():
                (await task).close()  # a stream whose head has come already
        before = dict(api.engine.steps_of)
        await asyncio.sleep(2 * step_s)
        assert not api.engine.running and len(api.engine.cancelled) == 4
        assert all(api.engine.steps_of[name] <= before[name] + 1 for name in before)


@contextmanager
def beating(api: Api, turns_s: list[float]) -> Iterator[None]:
    """GET /beat notes what the server's loop computes between two turns of one that only waits.

    Seconds of its thread, not of the clock: what other processes take is nobody's stall.
    """
    has_ended = threading.Event()

    @api.app.get("/beat")
    async def beat() -> None:
        last_s = time.thread_time()
        while not has_ended.is_set():
            await asyncio.sleep(0.01)
            now_s = time.thread_time()
            turns_s.append(now_s - last_s)
            last_s = now_s

    try:
        yield
    finally:
        has_ended.set()


async def test_an_answer_with_very_many_log_probabilities_stalls_nobody(model_folder) -> None:
    config = ModelConfig(name="scripted", path=str(model_folder), limits=Limits(max_choices=128))
    api = Api(load_model(config), ScriptedEngine(lambda request: [70] * 350, max_waiting=128))
    fields = {"n": 128, "logprobs": True, "top_logprobs": 20}
    turns_s: list[float] = []
    with LiveServer(api) as server, beating(api, turns_s):
        async with aiohttp.ClientSession(server.url) as http:
            beat = asyncio.create_task(http.get("/beat").__aenter__())
            url = "/v1/chat/completions"
            async with http.post(url, data=chat(**fields), headers=HEADERS) as response:
                assert len(await response.read()) > 128 * 350 * 20
            beat.cancel()
    assert max(turns_s) < sum(turns_s) / 3, "in one go it is all of it"
