"""A remote model, served by our own API in another thread."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from apps.serve.config import Limits, ModelConfig
from apps.serve.engine.remote import RemoteEngine
from apps.serve.model.entry import RemoteEntry
from tests.serve.api import Api, LiveServer, events


@contextlib.asynccontextmanager
async def reached(near: Api, url: str, model: str) -> AsyncIterator[None]:
    """The API has a model `far`, which is a model of the server at `url`."""
    options = {"base_url": url, "model": model}
    config = ModelConfig(name="far", engine="remote", options=options)
    engine = RemoteEngine(config.engine_config(""))
    await engine.start()
    near.directory.entries["far"] = RemoteEntry(config=config, engine=engine)
    yield
    await engine.close()


@pytest.fixture
async def remote(api_saying):
    """(API that forwards, API that answers)"""
    far: Api = api_saying("From afar")
    near: Api = api_saying("From here")
    with LiveServer(far) as server:
        async with reached(near, f"{server.url}/v1", "scripted"):
            yield near, far


async def test_a_remote_models_answers_come_under_its_name_here(remote) -> None:
    near, far = remote
    body = (await near.chat(model="far", seed=3)).json()
    assert body["model"] == "far"
    assert body["choices"][0]["message"]["content"] == "From afar"
    chunks = events(await near.chat(model="far", stream=True))
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert text == "From afar" and {c["model"] for c in chunks} == {"far"}
    counted = (await near.http.get("/metrics")).text
    assert 'cria_time_to_first_token_seconds_count{model="far"} 2.0' in counted
    assert far.engine.requests[0].params.seed == 3
    assert not near.engine.requests


async def test_what_the_remote_server_refuses_is_passed_on(remote) -> None:
    near, _ = remote
    response = await near.chat("long " * 200, model="far")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert (await near.chat(model="far", n=0)).status_code == 400


async def test_a_server_that_is_gone_is_a_502(api_saying) -> None:
    near: Api = api_saying("x")
    config = ModelConfig(
        name="far", engine="remote", options={"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    )
    engine = RemoteEngine(config.engine_config(""))
    await engine.start()
    near.directory.entries["far"] = RemoteEntry(config=config, engine=engine)
    response: httpx.Response = await near.chat(model="far")
    assert (response.status_code, response.json()["error"]["type"]) == (502, "server_error")
    listed = (await near.http.get("/v1/models/far")).json()
    assert listed["owned_by"] == "remote"
    await engine.close()


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}


MADE = {
    "html": lambda: web.Response(text="<html>soon back</html>", content_type="text/html"),
    "list": lambda: web.json_response([1]),
    "no choices": lambda: web.json_response({"status": "ok"}),
    "created": lambda: web.json_response({"choices": []}, status=201),
    "html 503": lambda: web.Response(text="<html>", content_type="text/html", status=503),
    "detail": lambda: web.json_response({"detail": "nope"}, status=422),
    "details": lambda: web.json_response({"detail": [{"msg": "nope"}]}, status=422),
    "message": lambda: web.json_response({"object": "error", "message": "nope"}, status=400),
    "text": lambda: web.json_response({"error": "nope"}, status=404),
    "odd": lambda: sse(b"data: []\n\ndata: [DONE]\n\n"),
    "stream 500": lambda: sse(b'data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n', 500),
    "no end": lambda: sse(b'data: {"model": "m", "choices": []}\n\ndata: [DONE]'),
    "error": lambda: sse(b'data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n'),
}


def sse(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="text/event-stream")


class Elsewhere:
    """A server whose answer hangs on `user`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if body.get("user") == "moved":
            raise web.HTTPFound("http://example.invalid/")
        if body.get("user") == "key":
            return web.json_response({"error": {"message": "wrong key sk-abc"}}, status=401)
        if body.get("user") == "busy":
            error = {"error": {"message": "busy"}}
            return web.json_response(error, status=429, headers={"Retry-After": "7"})
        if body.get("user") == "late":
            await asyncio.sleep(0.12)
            return web.json_response({"error": {"message": "overslept"}}, status=503)
        if body.get("user") == "dated":
            date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
            return web.json_response({}, status=429, headers={"Retry-After": date})
        if (made := MADE.get(body.get("user"))) is not None:
            return made()
        usage = {"prompt_tokens": "many", "completion_tokens": -1}
        return web.json_response({"model": body["model"], "choices": [], "usage": usage})


@pytest.fixture
async def elsewhere(api_saying):
    """(API that forwards, the server it forwards to)"""
    far, near = Elsewhere(), api_saying("From here")
    app = web.Application()
    app.router.add_post("/v1/chat/completions", far.answer)
    async with TestServer(app) as server, reached(near, str(server.make_url("/v1")), "theirs"):
        yield near, far


async def test_pictures_are_sent_on_as_they_are(elsewhere) -> None:
    near, far = elsewhere
    messages = [{"role": "user", "content": [IMAGE, {"type": "text", "text": "what?"}]}]
    body = {"model": "far", "messages": messages}
    response = await near.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, "and of odd counts of tokens nothing is counted"
    assert far.bodies[0]["messages"] == messages
    refused = await near.http.post("/v1/chat/completions", json={**body, "model": "scripted"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_content")


@pytest.mark.parametrize("user", ["key", "moved"])
async def test_what_is_wrong_between_here_and_there_is_no_fault_of_the_client(
    elsewhere, user
) -> None:
    near, _ = elsewhere
    response = await near.chat(model="far", user=user)
    assert response.status_code == 502 and "sk-abc" not in response.text


async def test_the_time_to_come_back_is_passed_on(elsewhere) -> None:
    near, _ = elsewhere
    response = await near.chat(model="far", user="busy")
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")


async def test_a_stream_of_another_form_ends_with_an_error(elsewhere) -> None:
    near, _ = elsewhere
    (error,) = events(await near.chat(model="far", user="odd", stream=True))
    assert error["error"]["type"] == "server_error"


async def test_the_limits_of_a_remote_model_hold(elsewhere) -> None:
    near, far = elsewhere
    entry = near.directory.entries["far"]
    limits = Limits(max_output_tokens=10, max_choices=2)
    config = dataclasses.replace(entry.config, limits=limits)
    near.directory.entries["far"] = RemoteEntry(config=config, engine=entry.engine)
    for fields in ({"max_tokens": 11}, {"max_completion_tokens": 11}, {"n": 3}):
        assert (await near.chat(model="far", **fields)).status_code == 400
    assert not far.bodies
    for fields in ({}, {"max_tokens": 5}, {"max_completion_tokens": 5}):
        assert (await near.chat(model="far", **fields)).status_code == 200
    sent = [{k: v for k, v in body.items() if k.startswith("max")} for body in far.bodies]
    assert sent == [{"max_tokens": 10}, {"max_tokens": 5}, {"max_completion_tokens": 5}]
    both = {"max_tokens": 100_000, "max_completion_tokens": 5}
    assert (await near.chat(model="far", **both)).status_code == 200
    assert far.bodies[-1]["max_completion_tokens"] == 5 and "max_tokens" not in far.bodies[-1]
    refused = await near.chat(model="far", max_tokens=5, max_completion_tokens=11)
    assert refused.json()["error"]["param"] == "max_completion_tokens"


@pytest.mark.parametrize("user", ["html", "list", "no choices", "created"])
async def test_what_is_no_answer_is_a_502(elsewhere, user: str) -> None:
    near, _ = elsewhere
    for fields in ({}, {"stream": True}):
        response = await near.chat(model="far", user=user, **fields)
        assert (response.status_code, response.json()["error"]["type"]) == (502, "server_error")
        assert "'far'" in response.json()["error"]["message"]


async def test_a_stream_that_was_not_asked_for_is_a_502_and_so_is_none(elsewhere) -> None:
    near, _ = elsewhere
    assert (await near.chat(model="far", user="no end")).status_code == 502
    assert (await near.chat(model="far", stream=True)).status_code == 502


@pytest.mark.parametrize(
    ("user", "status", "message"),
    [
        ("html 503", 503, "not JSON"),
        ("detail", 422, "nope"),
        ("details", 422, '[{"msg":"nope"}]'),
        ("message", 400, "nope"),
        ("text", 404, "nope"),
        ("stream 500", 500, "refused the request"),
    ],
)
async def test_refusals_of_any_shape_come_in_openais(elsewhere, user, status, message) -> None:
    near, _ = elsewhere
    response = await near.chat(model="far", user=user)
    assert response.status_code == status
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"} and message in error["message"]


async def test_a_stream_whose_last_line_has_no_end_is_whole(elsewhere) -> None:
    near, _ = elsewhere
    assert events(await near.chat(model="far", user="no end", stream=True)) == [
        {"model": "far", "choices": []}
    ]


async def test_an_error_within_a_stream_is_counted_as_one(elsewhere) -> None:
    near, _ = elsewhere
    (error,) = events(await near.chat(model="far", user="error", stream=True))
    assert error["error"]["message"] == "x"
    assert 'status="502"' in (await near.http.get("/metrics")).text


async def test_a_stream_says_that_it_lives_while_the_other_server_says_nothing(
    remote, monkeypatch
) -> None:
    near, far = remote
    far.engine.step_s = 0.12
    monkeypatch.setattr("apps.serve.gateway.respond.KEEP_ALIVE_S", 0.05)
    response = await near.chat(model="far", stream=True, max_tokens=2)
    assert response.text.startswith(": working\n\n")
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in events(response))
    assert text == "Fr"


async def test_a_refusal_that_comes_after_a_comment_is_an_event(elsewhere, monkeypatch) -> None:
    near, _ = elsewhere
    monkeypatch.setattr("apps.serve.gateway.respond.KEEP_ALIVE_S", 0.05)
    response = await near.chat(model="far", stream=True, user="late")
    assert response.status_code == 200 and response.text.startswith(": working\n\n")
    (error,) = events(response)
    assert error["error"]["message"] == "overslept"
    counted = (await near.http.get("/metrics")).text
    assert 'model="far",status="503"' in counted
    assert near.directory.entries["far"].engine._slots._value == 256


async def test_a_date_to_come_back_at_is_told_in_seconds(elsewhere) -> None:
    near, _ = elsewhere
    response = await near.chat(model="far", user="dated")
    assert response.status_code == 429 and 1 <= int(response.headers["retry-after"]) <= 30


async def test_a_completion_without_a_length_has_openais_elsewhere_too(remote) -> None:
    near, far = remote
    await near.complete(model="far")
    assert far.engine.requests[0].params.max_tokens == 16
    await near.chat(model="far")
    assert far.engine.requests[1].params.max_tokens is None
