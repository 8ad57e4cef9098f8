"""Reading server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import orjson

MAX_LINE_BYTES = 16 * 1024 * 1024
"""An echoed prompt with its log-probabilities is one event, see plan.MAX_PROMPT_LOGPROBS."""
DONE = b"[DONE]"


async def read_events(response: aiohttp.ClientResponse) -> AsyncGenerator[dict[str, Any], None]:
    """JSON payloads of the `data` lines up to [DONE]. Raises ValueError on anything else."""
    async with contextlib.aclosing(_lines(response)) as lines:
        async for line in lines:
            if not line.startswith(b"data:"):
                continue
            payload = line[5:].strip()
            if payload == DONE:
                return
            event = orjson.loads(payload)
            if not isinstance(event, dict):
                raise ValueError("an event is not a JSON object")
            yield event
    raise ValueError("the stream ended without [DONE]")


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The last one may have no end: servers differ in what follows [DONE]."""
    buffer = b""
    async for part in response.content.iter_any():
        buffer += part
        *lines, buffer = buffer.split(b"\n")
        if len(buffer) > MAX_LINE_BYTES:
            raise ValueError(f"an event is longer than {MAX_LINE_BYTES:,} bytes")
        for line in lines:
            yield line
    yield buffer
