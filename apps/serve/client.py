"""Streams that go on when the connection or the gateway they came through is lost.

    async with AsyncClient(["http://a:8000/v1", "http://b:8000/v1"], api_key="sk-...") as client:
        body = {"model": "vicuna", "messages": [...]}
        async for chunk in client.stream("chat/completions", body):
            ...

The chunks are OpenAI's. After a loss the same request is sent again with `Last-Event-ID`, to the
next address where there are several, and the stream goes on after the last chunk that came: none is
missing, none comes twice. Streams of a pool have no ids; a plain chat of one goes on from its text,
by `continue_final_message`, where the gateway says that it can. Any other ends in StreamError.
`Client` is the same without asyncio.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import httpx
import orjson

MAX_FRUITLESS = 18
"""attempts in a row that brought no chunk: a minute of them, for a lost proxy is away for half"""
_PAUSE_S = 0.25
_MAX_PAUSE_S = 4.0
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
_STARTING = b"/-/routes for available routes"
"""Ray Serve's proxy says so, with 404, until it has heard of the gateway."""
GOES_ON_HEADER = "x-goes-on-from"
"""of a stream without ids: `text`, where `continue_final_message` brings the rest"""
_TIMEOUT = httpx.Timeout(60.0)  # a gateway says every 15 s that it is there


class StreamError(Exception):
    """The service refused, or could not be reached for too long; `status` is HTTP's, or 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Lines:
    """Lines of server-sent events, which end at a line feed.

    httpx ends lines at U+2028 and others too, which may stand in an answer.
    """

    def __init__(self) -> None:
        self._rest = b""

    def of(self, data: bytes) -> list[str]:
        """Those that these bytes end."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.removesuffix(b"\r").decode() for line in whole]


async def lines_of(response: httpx.Response) -> AsyncIterator[str]:
    """As they come."""
    lines = Lines()
    async for data in response.aiter_bytes():
        for line in lines.of(data):
            yield line


class _Said:
    """What has come of a plain chat."""

    def __init__(self) -> None:
        self.is_finished = False
        self._id = self._text = ""
        self._num_pieces = 0
        self._is_continued = False

    def taken(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """The chunk, as part of the stream that began first."""
        self._id = self._id or chunk.get("id", "")
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {}
            self._text += delta.get("content") or ""
            self._num_pieces += bool(delta.get("content"))
            self.is_finished = choice.get("finish_reason") is not None
            if self._is_continued:
                delta.pop("role", None)
        return {**chunk, "id": self._id} if self._is_continued else chunk

    def rest_of(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request for what is missing. A piece is at least one token."""
        self._is_continued = True
        if not self._text:
            return dict(body)
        *messages, last = body["messages"]
        begun = {"role": "assistant", "content": self._text}
        if body.get("continue_final_message"):
            before = last.get("content") or last.get("refusal") or ""
            if isinstance(before, list):
                text = [*before, {"type": "text", "text": self._text}]
            else:
                text = before + self._text
            begun = {**last, "content": text}
            begun.pop("refusal", None)  # it is in the text, where there was no other
        else:
            messages.append(last)
        left = {
            name: max(1, most - self._num_pieces)
            for name in ("max_tokens", "max_completion_tokens")
            if isinstance(most := body.get(name), int)
        }
        if isinstance(least := body.get("min_tokens"), int):
            left["min_tokens"] = max(0, least - self._num_pieces)
        return {
            **body,
            **left,
            "messages": [*messages, begun],
            "continue_final_message": True,
            "add_generation_prompt": False,
        }


class _Stream:
    """What is known of one stream; does no input or output itself."""

    def __init__(self, urls: Sequence[str], route: str, body: Mapping[str, Any]) -> None:
        self._urls, self._route = urls, route
        self.content = orjson.dumps({**body, "stream": True})
        self.is_done = False
        self._body = body
        self._last_id = ""
        self._has_begun = self._goes_on_from_text = False
        self._said = _Said()
        self._attempts = self._fruitless = 0
        self._event: dict[str, str] = {}
        self._lines = Lines()

    def next_request(self) -> tuple[str, dict[str, str]]:
        url = self._urls[self._attempts % len(self._urls)].rstrip("/")
        self._attempts += 1
        self._event, self._lines = {}, Lines()
        headers = {"content-type": "application/json"}
        if self._last_id:
            headers["last-event-id"] = self._last_id
        return f"{url}/{self._route}", headers

    def begins(self, headers: Mapping[str, str]) -> None:
        """The answer to a request has begun; `headers` are the gateway's."""
        self._goes_on_from_text = headers.get(GOES_ON_HEADER) == "text"

    @property
    def has_all(self) -> bool:
        """Whether the answer has ended, its last event or not."""
        return self.is_done or (self._goes_on_from_text and self._said.is_finished)

    def read(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The chunks that these bytes end. Raises StreamError for an error event."""
        for line in self._lines.of(data):
            if (chunk := self._read(line)) is not None:
                yield chunk

    def _read(self, line: str) -> dict[str, Any] | None:
        """The chunk that this line ends, if it does."""
        if line:
            name, _, value = line.partition(":")
            self._event[name] = value.removeprefix(" ")
            return None
        event, self._event = self._event, {}
        data = event.get("data", "")
        if data == "[DONE]":
            self.is_done = True
        if not data or data == "[DONE]":
            return None
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise StreamError(f"An event of the stream is no JSON: {data[:200]}") from error
        if not isinstance(chunk, dict) or "error" in chunk:
            raise StreamError(_message(data.encode()))
        self._last_id = event.get("id", "")
        self._has_begun = True
        self._fruitless = 0
        return self._said.taken(chunk)

    def check(self, status: int, text: bytes) -> None:
        """Raises StreamError for an answer that another attempt would only repeat."""
        is_passing = status in _TRY_AGAIN or (status == 404 and _STARTING in text)
        if status != 200 and not is_passing:
            raise StreamError(_message(text), status)

    def pause_s(self, reason: str, response: httpx.Response | None) -> float:
        """Until the next attempt. Raises StreamError when there were too many in vain.

        So it does where the next would begin anew.
        """
        if self._has_begun and not self._last_id:
            if not self._goes_on_from_text:
                raise StreamError(f"The stream was lost and has no ids to go on from: {reason}")
            self.content = orjson.dumps({**self._said.rest_of(self._body), "stream": True})
        self._fruitless += 1
        status = 0 if response is None or response.is_success else response.status_code
        if self._fruitless > MAX_FRUITLESS:
            raise StreamError(
                f"The stream did not go on after {MAX_FRUITLESS} attempts: {reason}", status
            )
        asked = response.headers.get("retry-after", "") if response is not None else ""
        if asked.isdigit():
            if float(asked) > MAX_FRUITLESS * _MAX_PAUSE_S:  # as for a day's dollars
                raise StreamError(reason, status)
            return min(_MAX_PAUSE_S, float(asked))
        return min(_MAX_PAUSE_S, _PAUSE_S * 2 ** (self._fruitless - 1))


def _message(text: bytes) -> str:
    try:
        return str(orjson.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200].decode("utf-8", errors="replace")


def _headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


class AsyncClient:
    def __init__(self, urls: Sequence[str], api_key: str = "") -> None:
        """`urls` end in /v1."""
        self._urls = urls
        self._http = httpx.AsyncClient(headers=_headers(api_key), timeout=_TIMEOUT)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def stream(self, route: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Chunks of `chat/completions` or `completions`. Raises StreamError."""
        stream = _Stream(self._urls, route, body)
        while True:
            url, headers = stream.next_request()
            response, reason = None, "the connection closed before the end"
            try:
                async with self._http.stream(
                    "POST", url, content=stream.content, headers=headers
                ) as response:
                    if response.status_code == 200:
                        stream.begins(response.headers)
                        async for data in response.aiter_bytes():
                            for chunk in stream.read(data):
                                yield chunk
                            if stream.is_done:
                                return
                    else:
                        reason = _message(await response.aread())
                        stream.check(response.status_code, response.content)
            except httpx.TransportError as error:
                reason = repr(error)
            if stream.has_all:
                return
            await asyncio.sleep(stream.pause_s(reason, response))


class Client:
    def __init__(self, urls: Sequence[str], api_key: str = "") -> None:
        """`urls` end in /v1."""
        self._urls = urls
        self._http = httpx.Client(headers=_headers(api_key), timeout=_TIMEOUT)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def stream(self, route: str, body: Mapping[str, Any]) -> Generator[dict[str, Any]]:
        """As AsyncClient's."""
        stream = _Stream(self._urls, route, body)
        while True:
            url, headers = stream.next_request()
            response, reason = None, "the connection closed before the end"
            try:
                with self._http.stream(
                    "POST", url, content=stream.content, headers=headers
                ) as response:
                    if response.status_code == 200:
                        stream.begins(response.headers)
                        for data in response.iter_bytes():
                            yield from stream.read(data)
                            if stream.is_done:
                                return
                    else:
                        reason = _message(response.read())
                        stream.check(response.status_code, response.content)
            except httpx.TransportError as error:
                reason = repr(error)
            if stream.has_all:
                return
            time.sleep(stream.pause_s(reason, response))
