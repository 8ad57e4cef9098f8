import dataclasses
import math

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from apps.common.errors import ConfigError
from apps.serve.engine.config import RemoteConfig
from apps.serve.engine.protocol import OverloadedError
from apps.serve.engine.remote import RemoteEngine


async def answer(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if request.headers.get("Authorization") != "Bearer secret":
        return web.json_response({"error": {"message": "wrong key"}}, status=401)
    if body.get("user") == "redirect":
        raise web.HTTPFound("http://example.invalid/")
    if body.get("user") == "html":
        return web.Response(text="<html>", content_type="text/html", status=502)
    if not body.get("stream"):
        return web.json_response({"model": body["model"]})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for part in (b'data: {"n": 1}\n', b'\ndata: {"n"', b": 2}\n\n: comment\n\n"):
        await response.write(part)
    if body.get("user") != "cut":
        await response.write(b"data: [DONE]\n\n")
    return response


@pytest.fixture
async def remote(monkeypatch):
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server:
        monkeypatch.setenv("TEST_KEY", "secret")
        engine = RemoteEngine(
            RemoteConfig(
                base_url=str(server.make_url("/v1")), model="theirs", api_key_env="TEST_KEY",
                max_running=1,
            )
        )  # fmt: skip
        await engine.start()
        yield engine
        await engine.close()


async def test_the_key_and_the_remote_name_are_put_in(remote) -> None:
    async with remote.send("chat/completions", {"model": "ours"}) as sent:
        assert (sent.status, sent.body) == (200, {"model": "theirs"})


async def test_an_answer_may_take_as_long_as_it_likes(remote) -> None:
    endless = RemoteEngine(dataclasses.replace(remote.config, timeout_s=math.inf))
    await endless.start()
    async with endless.send("chat/completions", {"model": "ours"}) as sent:
        assert sent.status == 200
    await endless.close()


async def test_streams_come_event_by_event_and_must_end_with_done(remote) -> None:
    async with remote.send("chat/completions", {"stream": True}) as sent:
        assert [event async for event in sent.events()] == [{"n": 1}, {"n": 2}]
    async with remote.send("chat/completions", {"stream": True, "user": "cut"}) as sent:
        with pytest.raises(ValueError, match="DONE"):
            _ = [event async for event in sent.events()]


@pytest.mark.parametrize(("user", "status"), [("redirect", 302), ("html", 502)])
async def test_what_is_not_json_becomes_an_error_and_no_redirect_is_followed(
    remote, user, status
) -> None:
    async with remote.send("chat/completions", {"user": user}) as sent:
        assert sent.status == status
        assert "not JSON" in sent.body["error"]["message"]


async def test_more_than_max_running_is_refused(remote) -> None:
    async with remote.send("chat/completions", {"stream": True}):
        with pytest.raises(OverloadedError):
            async with remote.send("chat/completions", {}):
                pass


def test_a_missing_key_is_a_sentence(tmp_path) -> None:
    files = {"none": None, "empty": b" \n", "binary": b"\xff\xfek\x00"}
    for name, data in files.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    found = [{"api_key_file": str(tmp_path / name)} for name in files]
    for setting in ({"api_key_env": "NO_SUCH_KEY"}, *found):
        with pytest.raises(ConfigError, match=r"not set|does not exist|is empty|no key has"):
            RemoteEngine(RemoteConfig(base_url="http://127.0.0.1:1/v1", model="m", **setting))


async def test_the_key_goes_to_its_own_server_and_not_to_another_that_tells_its_health(
    monkeypatch,
) -> None:
    heard: dict[int, str] = {}

    async def health(request: web.Request) -> web.Response:
        heard[request.url.port or 0] = request.headers.get("Authorization", "")
        return web.Response()

    app, other = web.Application(), web.Application()
    for one in (app, other):
        one.router.add_get("/health", health)
    monkeypatch.setenv("TEST_KEY", "secret")
    async with TestServer(app) as server, TestServer(other) as elsewhere:
        for there in (server, elsewhere):
            base, url = str(server.make_url("/v1")), str(there.make_url("/health"))
            engine = RemoteEngine(
                RemoteConfig(base_url=base, model="m", api_key_env="TEST_KEY", health_url=url)
            )
            await engine.start()
            assert await engine.health() == "well"
            await engine.close()
        assert heard == {server.port: "Bearer secret", elsewhere.port: ""}
