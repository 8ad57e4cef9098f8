"""A stream that lost its connection goes on, at any gateway, without gap or repeat."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from apps.serve.answer.position import Cursor, Position
from apps.serve.replica.replica import ModelReplica
from apps.serve.replica.wire import ReplicaName
from tests.serve.replica.gateway import gateway_of
from tests.serve.scripted import ScriptedEngine

TEXT = "Hello there, naïve 🙂 world"


def parts(response: httpx.Response) -> list[tuple[str, str]]:
    """(id, data) of each event, the end without an id."""
    found = []
    for block in filter(None, response.text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("id", ""), fields["data"]))
    return found


FIELDS: list[dict[str, Any]] = [
    {},
    {"stream_options": {"include_usage": True}},
    {"n": 3, "temperature": 1.0},
    {"logprobs": True, "top_logprobs": 2, "max_tokens": 9},
    {"stop": ["world"]},
    {"max_tokens": 0},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
async def test_after_any_event_another_gateway_sends_exactly_the_rest(
    api_saying, fields: dict
) -> None:
    whole = parts(await api_saying(TEXT).chat(stream=True, **fields))
    assert whole[-1] == ("", "[DONE]") and all(name for name, _ in whole[:-1])
    for count, (name, _) in enumerate(whole[:-1], 1):
        other = api_saying(TEXT)
        other.http.headers["last-event-id"] = name
        rest = parts(await other.chat(stream=True, **fields))
        expected = whole[count:]
        assert sorted(data for _, data in rest) == sorted(data for _, data in expected)
        if "n" not in fields:
            assert rest == expected


async def test_the_whole_answer_and_its_usage_do_not_show_that_it_was_resumed(api_saying) -> None:
    usage = {"stream_options": {"include_usage": True}}
    whole = parts(await api_saying(TEXT).chat(stream=True, **usage))
    other = api_saying(TEXT)
    other.http.headers["last-event-id"] = whole[5][0]
    rest = parts(await other.chat(stream=True, **usage))
    assert json.loads(rest[-2][1])["usage"] == json.loads(whole[-2][1])["usage"]


@pytest.mark.parametrize(
    "name", ["x", "chatcmpl-1:3", "chatcmpl-" + "0" * 32 + ":3.4", "chatcmpl-" + "0" * 32 + ":-1"]
)
async def test_an_event_id_of_something_else_is_refused(api_saying, name: str) -> None:
    api = api_saying(TEXT)
    api.http.headers["last-event-id"] = name
    response = await api.chat(stream=True)
    assert response.status_code == 400 and "Last-Event-ID" in response.json()["error"]["message"]


def test_events_are_numbered_as_the_docstring_says() -> None:
    stream = "chatcmpl-" + "0" * 32
    cursor = Cursor(stream, 1, Position.read(f"{stream}:2+1"))
    assert cursor.new(0, 2, 2) == []
    assert cursor.new(0, 2, 3) == [(f"{stream}:2+2", 1), (f"{stream}:4", 2)]


async def test_a_replica_keeps_what_it_generated_for_a_gateway_that_died(served) -> None:
    ids = served.tokenizer.backend.encode("word " * 30).ids
    engine = ScriptedEngine(lambda request: ids, step_s=0.002)
    replica = ModelReplica(engine, ReplicaName("app", "one"))
    first, exchange = await gateway_of(replica, served)
    asking = asyncio.create_task(first.chat(stream=True))
    while not engine.steps_of.total() > 40:
        await asyncio.sleep(0.005)
    (request,) = engine.requests
    (connection,) = {inbox.connection for inbox in exchange._inboxes.values()}
    assert connection is not None
    connection._writer.transport.abort()  # as when its process is killed
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    while engine.running:
        await asyncio.sleep(0.005)

    second, other_exchange = await gateway_of(replica, served)
    stream = request.id.rpartition("-")[0]
    second.http.headers["last-event-id"] = f"{stream}:20"
    rest = parts(await second.chat(stream=True))
    text = "".join(json.loads(d)["choices"][0]["delta"].get("content", "") for _, d in rest[:-1])
    assert text == ("word " * 30)[20:]
    assert len(engine.requests[-1].generated_ids) >= 40, "it was not generated again"

    third, last_exchange = await gateway_of(replica, served)
    num_requests = len(engine.requests)
    third.http.headers["last-event-id"] = f"{stream}:30"
    assert len(parts(await third.chat(stream=True))) == len(rest) - 10
    assert len(engine.requests) == num_requests, "a finished answer is only told again"
    other = await third.chat("Something else", stream=True)
    assert len(engine.requests) == num_requests + 1, "it is told to who asked for it only"
    assert other.status_code == 200
    for one in (exchange, other_exchange, last_exchange):
        await one.close()


async def test_a_stream_that_waits_says_so(api_saying, monkeypatch) -> None:
    monkeypatch.setattr("apps.serve.gateway.respond.KEEP_ALIVE_S", 0.05)
    api = api_saying("Hi", step_s=0.15)
    entry = api.directory.entries["scripted"]
    entry.queue.places, entry.queue.max_waiting = 1, 5
    first, second = await asyncio.gather(api.chat(stream=True), api.chat(stream=True))
    assert ": working\n\n" in first.text
    assert ": waiting, 0 requests before this\n\n" in second.text
    assert first.text.endswith("data: [DONE]\n\n") and second.text.endswith("data: [DONE]\n\n")
