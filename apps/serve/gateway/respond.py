"""Answering: one JSON object, or server-sent events as the tokens come.

A stream is, per choice, one chunk with the role, chunks with text, one with the finish reason; then
the usage when asked for, and `[DONE]`. The status line is sent with the first token, so that a
request that cannot be served gets its proper status and not an error inside a 200.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from apps.serve.answer.choices import TextChoice, Usage
from apps.serve.answer.generation import Delta, GenerationError, follow_all
from apps.serve.config import ModelConfig
from apps.serve.engine.protocol import OverloadedError, RequestError
from apps.serve.errors import ApiError, sentence
from apps.serve.gateway.account import Account
from apps.serve.gateway.plan import Plan
from apps.serve.model.directory import Entry
from apps.serve.replica.exchange import ReplicaLostError

SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
DONE = b"data: [DONE]\n\n"


class WatchedResponse(Response):
    """Runs while it is sent and ends when the client leaves."""

    def __init__(self, account: Account, model: ModelConfig) -> None:
        super().__init__()
        self._account = account
        account.begin(model)

    async def _respond(self, send: Send) -> None:
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._respond(send))
        client = asyncio.ensure_future(_wait_until_gone(receive))
        try:
            await asyncio.wait({work, client}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            work.cancel()
            client.cancel()
            await asyncio.gather(work, client, return_exceptions=True)

    async def _send_error(self, send: Send, error: ApiError) -> None:
        await send_whole(send, error.status, error.body(), error.headers())


class Answer(WatchedResponse):
    """Runs a plan's generation."""

    def __init__(self, account: Account, plan: Plan, entry: Entry) -> None:
        super().__init__(account, entry.model.config)
        self._plan = plan
        self._entry = entry

    async def _respond(self, send: Send) -> None:
        queue, owner, plan = self._entry.queue, self._account.owner, self._plan
        weight = owner.weight if owner is not None else 1.0
        try:
            async with self._patience():
                ticket = await queue.enter(
                    self._account.key, weight, plan.most_tokens, len(plan.jobs)
                )
        except (ApiError, OverloadedError) as error:
            await self._send_error(send, api_error(error))
            return
        try:
            await self._generate(send)
        finally:
            queue.leave(ticket)

    async def _generate(self, send: Send) -> None:
        deltas = follow_all(self._entry.backend, self._plan.jobs)
        async with contextlib.aclosing(deltas):
            try:
                async with self._patience():
                    first = await anext(deltas)
            except Exception as error:
                await self._send_error(send, self._told(error))
                return
            self._account.first_token()
            self._account.usage = Usage(self._plan.prompt_tokens, self._plan.per_prompt)
            respond = self._stream if self._plan.stream else self._whole
            await respond(send, first, deltas)

    @contextlib.asynccontextmanager
    async def _patience(self) -> AsyncGenerator[None, None]:
        """As long as a request may wait for its first token, its turn included."""
        timeout_s = self._entry.model.config.limits.queue_timeout_s
        waited_s = time.monotonic() - self._account.start_s
        try:
            # Not wait_for: Python 3.11's loses a cancellation that comes with the result.
            async with asyncio.timeout(timeout_s - waited_s):
                yield
        except TimeoutError:
            raise ApiError(
                503,
                f"No replica of {self._plan.head.model!r} began to answer within {timeout_s:g} s; "
                "try again later.",
                code="model_busy",
                retry_after_s=self._entry.queue.retry_after_s(),
            ) from None

    def _told(self, error: Exception) -> ApiError:
        """Of a full engine, that this gateway's queue knows when it will have room."""
        told = api_error(error)
        if told.retry_after_s is not None:
            told.retry_after_s = max(told.retry_after_s, self._entry.queue.retry_after_s())
        return told

    async def _whole(self, send: Send, first: Delta, deltas: AsyncGenerator[Delta, None]) -> None:
        plan = self._plan
        try:
            async for delta in _chained(first, deltas):
                self._account.usage.add(delta)
                plan.choices[delta.index].add(delta)
        except Exception as error:
            await self._send_error(send, api_error(error))
            return
        # Log-probabilities take microseconds each, and there may be a million of them.
        in_thread = any(choice.wants_logprobs for choice in plan.choices)
        body = await asyncio.to_thread(self._body) if in_thread else self._body()
        await send_whole(send, 200, orjson.Fragment(body), {})

    def _body(self) -> bytes:
        body = self._plan.head.body(self._plan.object, _choice_bodies(self._plan))
        return orjson.dumps({**body, "usage": self._account.usage.body()})

    async def _stream(self, send: Send, first: Delta, deltas: AsyncGenerator[Delta, None]) -> None:
        plan = self._plan
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        try:
            async for delta in _chained(first, deltas):
                self._account.usage.add(delta)
                chunks = plan.choices[delta.index].add(delta)
                await send_part(send, b"".join(self._event([chunk]) for chunk in chunks))
            tail = self._event([], self._account.usage.body()) if plan.include_usage else b""
        except Exception as error:
            failure = api_error(error)
            self._account.fail(failure.status)
            tail = event(failure.body())
        await send_part(send, tail + DONE, more=False)

    def _event(self, choices: list[Any], usage: dict[str, Any] | None = None) -> bytes:
        body = self._plan.head.body(self._plan.chunk_object, choices)
        if self._plan.include_usage:
            body["usage"] = usage
        return event(body)


def api_error(error: Exception) -> ApiError:
    """What a client is told about a failed generation."""
    if isinstance(error, ApiError):
        return error
    said = sentence(str(error))
    if isinstance(error, RequestError):
        return ApiError(400, said, param=error.param, code=error.code)
    if isinstance(error, OverloadedError):
        return ApiError(429, said, code="overloaded", retry_after_s=error.retry_after_s)
    if isinstance(error, ReplicaLostError):
        return ApiError(
            503, sentence(f"{error}; the request was tried on other replicas too"), retry_after_s=5
        )
    if isinstance(error, GenerationError):
        return ApiError(500, said)
    raise error


def _choice_bodies(plan: Plan) -> list[dict[str, Any]]:
    choices = list(plan.choices)
    if plan.keep_best is None:
        return [choice.body() for choice in choices]
    best: list[TextChoice] = []
    for start in range(0, len(choices), plan.per_prompt):
        group = [c for c in choices[start : start + plan.per_prompt] if isinstance(c, TextChoice)]
        best += sorted(group, key=lambda c: -c.mean_logprob)[: plan.keep_best]
    return [{**choice.body(), "index": i} for i, choice in enumerate(best)]


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


async def _chained(first: Delta, rest: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    yield first
    async for delta in rest:
        yield delta


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_part(send: Send, body: bytes, more: bool = True) -> None:
    if body or not more:
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def send_whole(send: Send, status: int, value: Any, headers: dict[str, str]) -> None:
    body = orjson.dumps(value)
    raw = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    raw += [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send_part(send, body, more=False)
