"""A remote model, served by our own API in another thread."""

import httpx
import pytest

from apps.serve.config import ModelConfig
from apps.serve.directory import RemoteEntry
from apps.serve.engine.remote import RemoteEngine
from tests.serve.conftest import Api, LiveServer, events


@pytest.fixture
async def remote(api_saying):
    """(API that forwards, API that answers)"""
    far: Api = api_saying("From afar")
    near: Api = api_saying("From here")
    with LiveServer(far) as server:
        options = {"base_url": f"{server.url}/v1", "model": "scripted"}
        config = ModelConfig(name="far", engine="remote", options=options)
        engine = RemoteEngine(config.engine_config(""))
        await engine.start()
        near.directory.entries["far"] = RemoteEntry(config=config, engine=engine)
        yield near, far
        await engine.close()


async def test_a_remote_models_answers_come_under_its_name_here(remote) -> None:
    near, far = remote
    body = (await near.chat(model="far", seed=3)).json()
    assert body["model"] == "far"
    assert body["choices"][0]["message"]["content"] == "From afar"
    chunks = events(await near.chat(model="far", stream=True))
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert text == "From afar" and {c["model"] for c in chunks} == {"far"}
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
