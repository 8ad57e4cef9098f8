"""Reading server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import aiohttp
import orjson

MAX_LINE_BYTES = 16 * 1024 * 1024
"""An echoed prompt with its log-probabilities is one event, see plan.MAX_PROMPT_LOGPROBS."""
DONE = b"[DONE]"


class EventReader:
    """JSON payloads of the `data` lines of a response, up to [DONE]."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self._lines: deque[bytes] = deque()
        """whole ones that have come"""
        self._rest = b""
        """of a line whose end has not come"""
        self._is_done = False

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Raises ValueError on anything but such events, and where [DONE] does not come."""
        async for part in self._content.iter_any():
            self._split(part)
            for event in self._whole():
                yield event
            if self._is_done:
                return
        # The last line may have no end: servers differ in what follows [DONE].
        self._split(b"\n")
        for event in self._whole():
            yield event
        if not self._is_done:
            raise ValueError("the stream ended without [DONE]")

    def untaken(self) -> list[dict[str, Any]]:
        """Those that have come and were not taken, for whoever stops in the middle. aiohttp holds
        up to half a megabyte."""
        found: list[dict[str, Any]] = []
        # A stream that broke off is no matter to who has left it.
        with contextlib.suppress(ValueError, RuntimeError, OSError, aiohttp.ClientError):
            found.extend(self._whole())
            self._split(self._content.read_nowait())
            found.extend(self._whole())
        return found

    def _split(self, part: bytes) -> None:
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"an event is longer than {MAX_LINE_BYTES:,} bytes")
        self._lines += lines

    def _whole(self) -> Iterator[dict[str, Any]]:
        while self._lines and not self._is_done:
            line = self._lines.popleft()
            if not line.startswith(b"data:"):
                continue
            payload = line[5:].strip()
            if payload == DONE:
                self._is_done = True
                return
            event = orjson.loads(payload)
            if not isinstance(event, dict):
                raise ValueError("an event is not a JSON object")
            yield event
