"""Any OpenAI-compatible server elsewhere.

Such a server takes text and templates it itself, so requests are forwarded as they are, with the
model's name and the key put in. It is reached only at the address in the config.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
import orjson

from apps.common.errors import ConfigError
from apps.common.files.endpoints import read_key, whole_key
from apps.common.retry_after import retry_after_s
from apps.serve.engine.config import RemoteConfig
from apps.serve.engine.protocol import OverloadedError
from apps.serve.engine.sse import EventReader

ROUTES = ("chat/completions", "completions")
HEALTH_TIMEOUT_S = 2.0
KEEP_ALIVE_S = 2.0
"""Less than the 5 s of uvicorn, which vLLM runs on: a request sent on a connection that the server
is just closing would be lost."""

Health = Literal["well", "silent", "dead"]
"""dead: nobody listens there any more"""
MAX_ANSWER_BYTES = 32 * 1024 * 1024


class RemoteAnswer:
    """What the server said: `status`, and either `body` or a stream of `events()`."""

    def __init__(self, status: int, body: dict[str, Any] | None, response: Any) -> None:
        self.status, self.body, self._response = status, body, response
        self._reader = EventReader(response)

    @property
    def retry_after_s(self) -> float | None:
        """As its headers say; None for a wait of years, which no client is told."""
        wait_s = retry_after_s(self._response.headers)
        return wait_s if wait_s is not None and wait_s < 1e9 else None

    def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Chunks of a streamed answer. Raises ValueError when it breaks off."""
        return self._reader.events()

    def untaken(self) -> list[dict[str, Any]]:
        """Chunks that have come, and that nobody takes from `events()` any more."""
        return self._reader.untaken() if self.body is None else []


class RemoteEngine:
    def __init__(self, config: RemoteConfig, key: str = "") -> None:
        """`key` beside the one that the config may name."""
        self.config = config
        self._key = key or key_of(config)
        self._slots = asyncio.Semaphore(config.max_running)
        self._tells_usage = True
        """of a stream, where it is asked to; few servers do not know the question"""

    async def start(self) -> None:
        limit_s = self.config.timeout_s
        self._http = aiohttp.ClientSession(
            self.config.base_url.rstrip("/") + "/",
            timeout=aiohttp.ClientTimeout(limit_s if limit_s < math.inf else None, sock_connect=10),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
        )

    @asynccontextmanager
    async def send(self, route: str, body: Mapping[str, Any]) -> AsyncIterator[RemoteAnswer]:
        """Forward a request body to one of ROUTES; leaving the context cancels it there.

        A stream is asked for its usage, whatever the body says, where the server can tell it.

        Raises OverloadedError when max_running requests are under way, aiohttp.ClientError when the
        server cannot be reached, ValueError when it answers 200 with no JSON object.
        """
        if route not in ROUTES:
            raise ValueError(f"route {route!r} is not one of {ROUTES}")
        if self._slots.locked():
            raise OverloadedError(f"{self.config.max_running} requests are under way already")
        async with self._slots:
            asking = _asking_for_usage(body) if self._tells_usage else body
            async with self._post(route, asking) as response:
                answer = await _answer(response)
                if asking == body or not _may_refuse_the_question(answer):
                    yield answer
                    return
            async with self._post(route, body) as response:
                answer = await _answer(response)
                # Else the request is wrong, and came back within what was said of that.
                if answer.status == 200:
                    self._tells_usage = False
                yield answer

    def _post(self, route: str, body: Mapping[str, Any]) -> Any:
        body = {**body, "model": self.config.model}
        # A redirect would carry the key to another address.
        return self._http.post(route, json=body, headers=self._bearer(), allow_redirects=False)

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    async def health(self) -> Health:
        """As its `health_url` says; well where it has none."""
        if not self.config.health_url:
            return "well"
        try:
            url, timeout = self.config.health_url, aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
            is_there = _origin(url) == _origin(self.config.base_url)
            headers = self._bearer() if is_there else {}  # the key is nobody else's
            async with self._http.get(
                url, timeout=timeout, headers=headers, allow_redirects=False
            ) as response:
                return "well" if response.status == 200 else "silent"
        except TimeoutError:
            return "silent"
        except (aiohttp.ClientError, RuntimeError):  # it was closed meanwhile
            return "dead"

    async def close_when_idle(self) -> None:
        """Refuse requests from now on; close when those under way have ended."""
        for _ in range(self.config.max_running):
            await self._slots.acquire()
        await self.close()

    async def close(self) -> None:
        await self._http.close()


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _asking_for_usage(body: Mapping[str, Any]) -> Mapping[str, Any]:
    if not body.get("stream"):
        return body
    options = body.get("stream_options") or {}
    return {**body, "stream_options": {**options, "include_usage": True}}


def _may_refuse_the_question(answer: RemoteAnswer) -> bool:
    return answer.status in (400, 422) and b"stream_options" in orjson.dumps(answer.body)


async def _answer(response: aiohttp.ClientResponse) -> RemoteAnswer:
    is_stream = response.content_type == "text/event-stream"
    body = None if is_stream else await _read_json(response)
    return RemoteAnswer(response.status, body, response)


async def _read_json(response: aiohttp.ClientResponse) -> dict[str, Any]:
    raw = bytearray()
    async for part in response.content.iter_any():
        raw += part
        if len(raw) > MAX_ANSWER_BYTES:
            break
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if response.status == 200:
        raise ValueError("the remote server answered 200 with no JSON object")
    message = f"the remote server answered {response.status} with something that is not JSON"
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


def key_of(config: RemoteConfig) -> str:
    """The key of the remote server, "" for none; raises ConfigError where it is not to be had."""
    if config.api_key_file:
        path = Path(config.api_key_file)
        if not path.is_file():
            raise ConfigError(f"api_key_file {config.api_key_file!r} does not exist")
        key = whole_key(path.read_bytes().decode("utf-8", "replace"), config.api_key_file)
        if not key:
            raise ConfigError(f"api_key_file {config.api_key_file!r} is empty")
        return key
    if config.api_key_env:
        key = read_key(config.api_key_env)
        if not key:
            raise ConfigError(f"environment variable {config.api_key_env} with the key is not set")
        return key
    return ""
