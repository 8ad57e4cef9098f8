"""What answers of servers elsewhere cost, told or not, whole or left early."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from apps.serve.answer.choices import Usage
from apps.serve.config import ModelConfig, Prices
from apps.serve.engine.remote import RemoteEngine
from apps.serve.gateway.estimate import PART_TOKENS, prompt_estimate
from apps.serve.gateway.tally import Tally
from apps.serve.model.entry import RemoteEntry
from apps.serve.model.pool import Member, PoolEntry
from tests.serve.api import Api, events

PROMPT = "x" * 300
ESTIMATE = prompt_estimate({"messages": [{"role": "user", "content": PROMPT}]})
WORDS = ("One", " two", " three", " four")
TOLD = {"prompt_tokens": 319, "completion_tokens": 40, "total_tokens": 359}


class Server:
    """Tells its usage, or does not, as `user` says."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.goes_on = asyncio.Event()
        self.has_ended = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        user = body.get("user")
        if user == "strict" and "stream_options" in body:
            return web.json_response({"error": "unknown field stream_options"}, status=400)
        if user == "echoes":  # as FastAPI does with what it refuses
            return web.json_response({"detail": [{"msg": "no", "input": body}]}, status=422)
        if user == "refuses":
            return web.json_response({"error": {"message": "no"}}, status=400)
        if user == "slow":
            await self.goes_on.wait()
        if not body.get("stream"):
            choices = [{"index": 0, "message": {"content": "".join(WORDS)}}]
            return web.json_response({"model": "m", "choices": choices})
        return await self._stream(request, user, bool(body.get("stream_options")))

    async def _stream(self, request: web.Request, user: str, tells: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in WORDS:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            chunk = {"model": "m", "choices": [choice], **({"usage": None} if tells else {})}
            await response.write(web_event(chunk))
        if user == "waits":
            await self.goes_on.wait()
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await response.write(web_event({"model": "m", "choices": [end]}))
        if tells and user != "silent":
            await response.write(web_event({"model": "m", "choices": [], "usage": TOLD}))
        await response.write(b"data: [DONE]\n\n")
        self.has_ended = True
        return response


def web_event(chunk: dict[str, object]) -> bytes:
    return b"data: " + web.json_response(chunk).body + b"\n\n"


class Setting(NamedTuple):
    near: Api
    far: Server
    used: Callable[[], Usage]
    """of the last request"""

    async def leave(self, after: str, **fields: object) -> Usage:
        """Ask, leave when that is in what came or has happened, and see what was used."""
        asking = asyncio.create_task(self.near.chat(PROMPT, **fields))
        for _ in range(2000):
            await asyncio.sleep(0.005)
            if self.far.bodies and (not after or self.used().completion_tokens >= len(WORDS)):
                break
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return self.used()


@pytest.fixture
async def setting(api_saying, monkeypatch) -> AsyncIterator[Setting]:
    from apps.serve.gateway import account

    accounts: list[account.Account] = []
    begin = account.Account.begin
    monkeypatch.setattr(
        account.Account, "begin", lambda self, model: accounts.append(self) or begin(self, model)
    )
    near, far = api_saying("From here"), Server()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", far.answer)
    async with TestServer(app) as server:
        options = {"base_url": str(server.make_url("/v1")), "model": "m"}
        prices = Prices(input_usd_per_million_tokens=1e6)
        config = ModelConfig(name="far", engine="remote", options=options, prices=prices)
        engine = RemoteEngine(config.engine_config(""))
        await engine.start()
        entry = RemoteEntry(config=config, engine=engine)
        near.directory.entries["far"] = entry
        pool = ModelConfig(name="pool", engine="pool", options={"members": [{"model": "far"}]})
        near.directory.entries["pool"] = PoolEntry(
            config=pool, members={"far": Member("far", entry)}
        )
        yield Setting(near, far, lambda: accounts[-1].usage)
        far.goes_on.set()
        await engine.close()


both = pytest.mark.parametrize("model", ["far", "pool"])


@both
async def test_a_stream_is_counted_as_told_though_the_client_does_not_ask(
    setting: Setting, model: str
) -> None:
    chunks = events(await setting.near.chat(PROMPT, model=model, stream=True))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "".join(WORDS)
    assert not any("usage" in chunk for chunk in chunks)
    assert (setting.used().prompt_tokens, setting.used().completion_tokens) == (319, 40)
    options = {"include_usage": True}
    chunks = events(
        await setting.near.chat(PROMPT, model=model, stream=True, stream_options=options)
    )
    assert chunks[-1]["usage"]["completion_tokens"] == 40
    assert {body["stream_options"]["include_usage"] for body in setting.far.bodies} == {True}


@both
@pytest.mark.parametrize("user", ["silent", "strict"])
async def test_a_server_that_tells_nothing_is_charged_by_an_estimate(
    setting: Setting, model: str, user: str
) -> None:
    for _ in range(2):
        chunks = events(await setting.near.chat(PROMPT, model=model, user=user, stream=True))
        assert not any("error" in chunk for chunk in chunks)
        used = setting.used()
        assert (used.prompt_tokens, used.completion_tokens) == (ESTIMATE, 5), "18 bytes"
    asked = [body for body in setting.far.bodies if "stream_options" in body]
    assert len(asked) == (1 if user == "strict" else 2), "it is not asked again"
    await setting.near.chat(PROMPT, model=model)
    assert setting.used().prompt_tokens == ESTIMATE and setting.used().completion_tokens == 5


@both
async def test_a_wrong_request_that_comes_back_whole_says_nothing_of_the_server(
    setting: Setting, model: str
) -> None:
    refused = await setting.near.chat(PROMPT, model=model, user="echoes", stream=True)
    assert refused.status_code == 422
    await setting.near.chat(PROMPT, model=model, stream=True)
    assert (setting.used().prompt_tokens, setting.used().completion_tokens) == (319, 40)


@both
async def test_leaving_early_is_paid_for(setting: Setting, model: str) -> None:
    used = await setting.leave("all words", model=model, user="waits", stream=True)
    assert (used.prompt_tokens, used.completion_tokens) == (ESTIMATE, 5)
    setting.far.bodies.clear()
    used = await setting.leave("", model=model, user="slow")
    assert (used.prompt_tokens, used.completion_tokens) == (ESTIMATE, 0)


@both
async def test_what_is_held_for_a_client_that_leaves_is_paid_for(
    setting: Setting, model: str, monkeypatch
) -> None:
    """It takes the first piece and no more, while the others and the usage come."""
    held = asyncio.Event()

    async def send_part(send, body: bytes, more: bool = True) -> None:
        await held.wait()

    for module in ("forward", "respond"):
        monkeypatch.setattr(f"apps.serve.gateway.{module}.send_part", send_part)
    asking = asyncio.create_task(setting.near.chat(PROMPT, model=model, stream=True))
    while not setting.far.has_ended:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert setting.used().completion_tokens < 5
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (setting.used().prompt_tokens, setting.used().completion_tokens) == (319, 40)


@both
async def test_what_a_server_does_not_take_costs_nothing(setting: Setting, model: str) -> None:
    assert (await setting.near.chat(PROMPT, model=model, user="refuses")).status_code == 400
    assert setting.used().prompt_tokens == 0


async def test_who_cannot_be_reached_costs_nothing(setting: Setting) -> None:
    entry = setting.near.directory.entries["far"]
    options = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    config = dataclasses.replace(entry.config, options=options)
    engine = RemoteEngine(config.engine_config(""))
    await engine.start()
    setting.near.directory.entries["far"] = RemoteEntry(config=config, engine=engine)
    assert (await setting.near.chat(PROMPT, model="far")).status_code == 502
    assert setting.used().prompt_tokens == 0
    await engine.close()


def test_a_prompt_is_estimated_by_its_bytes_its_ids_and_its_pictures() -> None:
    assert prompt_estimate({"prompt": [1, 2, 3]}) == 3
    assert prompt_estimate({"prompt": [[1, 2], [3]]}) == 3
    assert prompt_estimate({"prompt": ["x" * 400, "y"]}) == 101
    assert prompt_estimate({"prompt": "世" * 40}) == 30
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}
    message = {"role": "user", "content": [picture, {"type": "text", "text": "x" * 40}]}
    assert prompt_estimate({"messages": [message]}) == 4 + 10 + PART_TOKENS
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "x" * 399}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert prompt_estimate({"messages": [message]}) == 4 + 100
    tools = [{"type": "function", "function": {"name": "x" * 400}}]
    assert prompt_estimate({"messages": [message], "tools": tools}) > 204


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": "many"}, {"prompt_tokens": 0, "completion_tokens": 0}]
)
def test_a_usage_that_cannot_be_is_not_believed(usage: object) -> None:
    tally = Tally({"prompt": "x" * 40})
    tally.take({"choices": [{"text": "x" * 40}], "usage": usage})
    assert (tally.usage.prompt_tokens, tally.usage.completion_tokens) == (10, 10)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("x" * 400, ["x" * 400]),
        (["x" * 400, "z" * 200], ["x" * 400, "z" * 200]),
        ([7] * 100, ["x" * 400]),
        ([[7] * 100, [8] * 50], ["x" * 400, "z" * 200]),
    ],
)
@pytest.mark.parametrize("n", [None, 2])
def test_an_echoed_prompt_is_no_part_of_the_answer(
    prompt: object, texts: list[str], n: int | None
) -> None:
    tally = Tally({"prompt": prompt, "echo": True, "n": n})
    choices = [{"text": text + "y" * 40} for text in texts for _ in range(n or 1)]
    tally.take({"choices": choices})
    assert tally.usage.prompt_tokens == sum(map(len, texts)) / 4
    assert tally.usage.completion_tokens == 10 * len(choices)
