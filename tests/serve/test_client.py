"""The client that goes on, against two gateways whose connections break."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from apps.serve.client import AsyncClient, Client, Lines, StreamError, _Stream
from tests.serve.api import Api, LiveServer

TEXT = "a long answer " * 20
BODY = {
    "model": "scripted",
    "messages": [{"role": "user", "content": "hi"}],
    "stream_options": {"include_usage": True},
}


class Cutter:
    """A TCP relay that breaks each connection after so many bytes of the answer."""

    is_silent = False
    """It closes nothing: neither end is told that the other is gone."""

    def __init__(self, port: int, after_bytes: int) -> None:
        self._port, self._after_bytes = port, after_bytes
        self.num_cut = 0
        self._relays: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def close(self) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relays.append(asyncio.create_task(self._relay(reader, writer)))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def forward() -> None:
            while data := await reader.read(65536):
                back.write(data)

        forwarding = asyncio.ensure_future(forward())
        left = self._after_bytes
        try:
            while left > 0 and (data := await there.read(min(left, 4096))):
                left -= len(data)
                writer.write(data)
                await writer.drain()
            self.num_cut += left <= 0
            if self.is_silent:
                await asyncio.Event().wait()
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)
            for end in (writer, back):
                end.close()
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()


@pytest.fixture
async def cutters(api_saying) -> AsyncIterator[list[Cutter]]:
    apis: list[Api] = [api_saying(TEXT, step_s=0.0005) for _ in range(2)]
    with LiveServer(apis[0]) as one, LiveServer(apis[1]) as two:
        made = [Cutter(int(server.url.rsplit(":", 1)[1]), 9000) for server in (one, two)]
        for cutter in made:
            await cutter.start()
        yield made
        for cutter in made:
            await cutter.close()


def text_of(chunks: list[dict]) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


def check(chunks: list[dict], cutters: list[Cutter]) -> None:
    assert text_of(chunks) == TEXT
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert sum("role" in c["choices"][0]["delta"] for c in chunks if c["choices"]) == 1
    assert [c["usage"]["completion_tokens"] for c in chunks if c["usage"]] == [len(TEXT) + 1]
    assert sum(cutter.num_cut for cutter in cutters) >= 4


async def test_a_stream_goes_on_over_many_broken_connections(cutters: list[Cutter]) -> None:
    async with AsyncClient([cutter.url for cutter in cutters]) as client:
        chunks = [chunk async for chunk in client.stream("chat/completions", BODY)]
    check(chunks, cutters)


async def test_a_stream_goes_on_though_nobody_says_that_it_broke(
    cutters: list[Cutter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.serve.client._TIMEOUT", httpx.Timeout(0.5))
    for cutter in cutters:
        cutter.is_silent = True
    async with AsyncClient([c.url for c in cutters]) as client:
        check([c async for c in client.stream("chat/completions", BODY)], cutters)


async def test_without_asyncio_too(cutters: list[Cutter]) -> None:
    with Client([cutter.url for cutter in cutters]) as client:
        chunks = await asyncio.to_thread(list, client.stream("chat/completions", BODY))
    check(chunks, cutters)


def test_a_stream_without_ids_is_not_begun_again_in_the_middle() -> None:
    stream = _Stream(["http://a/v1"], "chat/completions", {})
    assert stream.pause_s("nobody listens", None) > 0, "nothing has come yet"
    assert list(stream.read(b'data: {"choices": []}\n\n')) == [{"choices": []}]
    with pytest.raises(StreamError, match="has no ids"):
        stream.pause_s("the connection closed", None)


def test_a_stream_is_asked_for_again_as_long_as_a_lost_proxy_may_be_away() -> None:
    stream, paused_s = _Stream(["http://a/v1"], "chat/completions", BODY), 0.0
    with pytest.raises(StreamError, match="did not go on after"):
        while True:
            paused_s += stream.pause_s("nobody listens", None)
    assert 55 < paused_s < 65


def said(text: str, name: str, **more: object) -> bytes:
    delta = {"role": "assistant", "content": text} if text else {}
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    return b"data: " + json.dumps({"id": name, "choices": [choice]}).encode() + b"\n\n"


def test_a_stream_of_a_pool_goes_on_from_its_text() -> None:
    """Without ids; the gateway has said that it can."""
    stream = _Stream(["http://a/v1"], "chat/completions", {**BODY, "max_tokens": 9})
    stream.begins({"x-goes-on-from": "text"})
    chunks = [*stream.read(said("One", "c1")), *stream.read(said(" two", "c1"))]
    for _ in range(2):  # the next attempt may come to nothing
        assert stream.pause_s("the connection closed", None) > 0
        asked = json.loads(stream.content)
        assert asked["messages"][-1] == {"role": "assistant", "content": "One two"}
        assert asked["continue_final_message"] and asked["stream"] and asked["max_tokens"] == 7
        stream.next_request()
    stream.begins({"x-goes-on-from": "text"})
    chunks += stream.read(said(" three.", "c2"))
    assert not stream.has_all
    chunks += stream.read(said("", "c2", finish_reason="stop"))
    assert text_of(chunks) == "One two three." and {chunk["id"] for chunk in chunks} == {"c1"}
    assert ["role" in chunk["choices"][0]["delta"] for chunk in chunks] == [
        True,
        True,
        False,
        False,
    ]
    assert stream.has_all, "only the last line is missing"


def test_fewest_tokens_are_asked_for_less_those_that_came() -> None:
    body = {**BODY, "max_tokens": 9, "min_tokens": 8}
    stream = _Stream(["http://a/v1"], "chat/completions", body)
    stream.begins({"x-goes-on-from": "text"})
    assert list(stream.read(said("One", "c1") + said(" two", "c1")))
    stream.pause_s("the connection closed", None)
    asked = json.loads(stream.content)
    assert (asked["min_tokens"], asked["max_tokens"]) == (6, 7)


def test_where_no_text_had_come_the_same_is_asked_again() -> None:
    stream = _Stream(["http://a/v1"], "chat/completions", BODY)
    stream.begins({"x-goes-on-from": "text"})
    assert list(stream.read(said("", "c1")))
    stream.pause_s("the connection closed", None)
    assert json.loads(stream.content) == {**BODY, "stream": True}


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({"content": "One"}, {"content": "One two"}),
        (
            {"content": [{"type": "text", "text": "One"}]},
            {"content": [{"type": "text", "text": "One"}, {"type": "text", "text": " two"}]},
        ),
        ({"refusal": "One", "name": "a"}, {"name": "a", "content": "One two"}),
        ({"content": "One", "refusal": "No"}, {"content": "One two"}),
        ({"content": None}, {"content": " two"}),
    ],
)
def test_what_the_asker_began_is_begun_still(
    last: dict[str, object], expected: dict[str, object]
) -> None:
    messages = [{"role": "user", "content": "Count."}, {"role": "assistant", **last}]
    body = {"messages": messages, "continue_final_message": True}
    stream = _Stream(["http://a/v1"], "chat/completions", body)
    stream.begins({"x-goes-on-from": "text"})
    assert list(stream.read(said(" two", "c1")))
    stream.pause_s("the connection closed", None)
    again = json.loads(stream.content)["messages"]
    assert again == [messages[0], {"role": "assistant", **expected}]


def test_who_is_asked_to_wait_for_hours_is_told_at_once() -> None:
    stream = _Stream(["http://a/v1"], "chat/completions", BODY)
    busy, spent = (httpx.Response(429, headers={"retry-after": s}) for s in ("3", "40000"))
    assert stream.pause_s("too many", busy) == 3
    with pytest.raises(StreamError, match="may spend") as caught:
        stream.pause_s("The key may spend $1 a day", spent)
    assert caught.value.status == 429


@pytest.mark.parametrize("data", ["{", "[1]", '{"error": "broken"}', '{"error": {"message": 7}}'])
def test_an_event_that_is_no_chunk_ends_the_stream_with_a_sentence(data: str) -> None:
    stream = _Stream(["http://a/v1"], "chat/completions", BODY)
    with pytest.raises(StreamError):
        list(stream.read(f"data: {data}\n\n".encode()))


LINE_ENDS = "one\u2028two\x85three\u2029four\x0bfive\x1esix"


def test_lines_end_at_line_feeds_alone_wherever_the_bytes_are_cut() -> None:
    whole = f"data: {LINE_ENDS}\r\nid: 1\n\n".encode()
    for cut in range(len(whole)):
        lines = Lines()
        assert lines.of(whole[:cut]) + lines.of(whole[cut:]) == [f"data: {LINE_ENDS}", "id: 1", ""]


async def test_an_answer_with_what_others_take_for_the_end_of_a_line(api_saying) -> None:
    with LiveServer(api_saying(LINE_ENDS)) as server:
        async with AsyncClient([f"{server.url}/v1"]) as client:
            assert text_of([c async for c in client.stream("chat/completions", BODY)]) == LINE_ENDS
        async with (
            httpx.AsyncClient() as plain,
            plain.stream(
                "POST", f"{server.url}/v1/chat/completions", json={**BODY, "stream": True}
            ) as answer,
        ):
            lines = [line async for line in answer.aiter_lines()]
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert text_of(chunks) == LINE_ENDS


async def test_a_refusal_is_told_at_once(api_saying) -> None:
    with LiveServer(api_saying("x")) as server:
        async with AsyncClient([f"{server.url}/v1"]) as client:
            with pytest.raises(StreamError, match="does not exist") as caught:
                _ = [c async for c in client.stream("chat/completions", {**BODY, "model": "no"})]
    assert caught.value.status == 404


async def test_a_service_that_is_gone_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr("apps.serve.client._MAX_PAUSE_S", 0.01)
    async with AsyncClient(["http://127.0.0.1:9/v1"]) as client:
        with pytest.raises(StreamError, match="did not go on after 18 attempts"):
            _ = [c async for c in client.stream("chat/completions", BODY)]


def test_a_proxy_that_knows_no_gateway_yet_is_asked_again() -> None:
    stream = _Stream(["http://a/v1"], "completions", {})
    ray_says = b"Path '/v1/completions' not found. Ping http://.../-/routes for available routes."
    stream.check(404, ray_says)
    for text in (b"<html>404 Not Found</html>", b'{"error": {"message": "no such model"}}'):
        with pytest.raises(StreamError) as caught:
            stream.check(404, text)
        assert caught.value.status == 404
