"""Answering: one JSON object, or server-sent events as the tokens come.

A stream is, per choice, one chunk with the role, chunks with text, one with the finish reason; then
the usage when asked for, and `[DONE]`. The status line is sent with the first token, so that a
request that cannot be served gets its proper status and not an error inside a 200.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from apps.serve.admission.fair_queue import Ticket
from apps.serve.answer.choices import TextChoice, Usage
from apps.serve.answer.generation import Delta, GenerationError, PoisonError, follow_all
from apps.serve.answer.position import Cursor
from apps.serve.config import ModelConfig
from apps.serve.engine.protocol import OverloadedError, RequestError
from apps.serve.errors import ApiError, sentence
from apps.serve.gateway.account import Account
from apps.serve.gateway.plan import Plan
from apps.serve.model.entry import Entry
from apps.serve.replica.exchange import ReplicaLostError

SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE_S = 15.0
_PIECE_BYTES = 1 << 18
_LINE_ENDS = [(char.encode(), f"\\u{ord(char):04x}".encode()) for char in "\x85\u2028\u2029"]
"""Lines end at these for many clients, httpx's among them, though not for server-sent events."""


class LivingResponse(Response):
    """Runs while it is sent and ends when the client leaves. May be a stream, in which something
    comes every now and then."""

    def __init__(self, account: Account, model: ModelConfig, id: str) -> None:
        """`id` is told at the stream's beginning; "": it has none."""
        super().__init__()
        self._account = account
        account.begin(model)
        self._id = id
        self._has_begun = False
        self._sent_s = time.monotonic()

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

    def _waits_for(self) -> str:
        return "working"

    async def _begin_stream(self, send: Send) -> None:
        if not self._has_begun:
            self._has_begun = True
            named = [(b"x-request-id", self._id.encode())] if self._id else []
            head = [*SSE_HEADERS, *self._more_headers(), *named]
            await send({"type": "http.response.start", "status": 200, "headers": head})

    def _more_headers(self) -> Sequence[tuple[bytes, bytes]]:
        return ()

    async def _send_events(self, send: Send, events: bytes) -> None:
        self._sent_s = time.monotonic()
        await send_part(send, events)

    @contextlib.asynccontextmanager
    async def _with_comments(self, send: Send, is_stream: bool) -> AsyncGenerator[None, None]:
        """A stream says something every now and then, for the length of the block."""
        speaking = asyncio.create_task(self._comment(send)) if is_stream else None
        try:
            yield
        finally:
            if speaking is not None:
                speaking.cancel()

    async def _comment(self, send: Send) -> None:
        """Comments while nothing else comes, so that nothing on the way takes the client or this
        service for gone."""
        while True:
            await asyncio.sleep(self._sent_s + KEEP_ALIVE_S - time.monotonic())
            if time.monotonic() - self._sent_s >= KEEP_ALIVE_S:
                await self._begin_stream(send)
                await self._send_events(send, f": {self._waits_for()}\n\n".encode())

    async def _tell(self, send: Send, error: ApiError) -> None:
        """As an answer of its own, or as the last event of a stream that has begun."""
        if not self._has_begun:
            self._has_begun = True
            self._account.refuse(error)
            await send_whole(send, error.status, error.body(), error.headers())
            return
        self._account.fail(error)
        await send_part(send, event(error.body()) + DONE, more=False)


class Answer(LivingResponse):
    """Runs a plan's generation."""

    def __init__(self, account: Account, plan: Plan, entry: Entry) -> None:
        super().__init__(account, entry.model.config, plan.head.id)
        self._plan = plan
        self._entry = entry
        self._usage = Usage(plan.prompt_tokens, plan.per_prompt)
        self._cursor = Cursor(plan.head.id, len(plan.jobs), plan.after)
        self._begun: set[int] = set()
        """prompts, by number, that a delta has come of"""
        self._ticket: Ticket | None = None

    def _waits_for(self) -> str:
        before = self._entry.queue.position(self._ticket) if self._ticket else None
        return "working" if before is None else f"waiting, {before} requests before this"

    async def _respond(self, send: Send) -> None:
        queue, owner, plan = self._entry.queue, self._account.owner, self._plan
        weight = owner.weight if owner is not None else 1.0
        async with self._with_comments(send, plan.stream):
            try:
                tokens, places = plan.most_tokens, len(plan.jobs)
                self._ticket = queue.ask(self._account.key, weight, tokens, places)
                async with self._patience():
                    with self._account.waiting():
                        await queue.turn(self._ticket)
                try:
                    await self._generate(send)
                finally:
                    queue.leave(self._ticket)
            except (ApiError, OverloadedError) as error:
                await self._fail(send, error)

    async def _generate(self, send: Send) -> None:
        untaken: list[Delta] = []
        try:
            async with contextlib.aclosing(self._counted(untaken)) as deltas:
                try:
                    async with self._patience():
                        first = await anext(deltas)
                except Exception as error:
                    await self._fail(send, error)
                    return
                self._account.first_token()
                respond = self._stream if self._plan.stream else self._whole
                await respond(send, first, deltas)
        finally:
            for delta in untaken:
                self._count(delta)

    async def _counted(self, untaken: list[Delta]) -> AsyncGenerator[Delta, None]:
        """Each delta, counted: the client may leave before the next await is over."""
        generated = follow_all(self._entry.backend, self._plan.jobs, untaken)
        async with contextlib.aclosing(generated) as deltas:
            async for delta in deltas:
                self._count(delta)
                yield delta

    def _count_prompt(self, delta: Delta) -> None:
        """Once, unless an earlier connection did. Only a replica tells that there was one, by what
        it kept: a client may send any Last-Event-ID."""
        prompt = delta.index // self._plan.per_prompt
        if prompt not in self._begun and not delta.is_replayed:
            self._account.usage.prompt_tokens += len(self._plan.jobs[delta.index].prompt_ids)
        self._begun.add(prompt)

    def _count(self, delta: Delta) -> None:
        """In the answer's usage; what an earlier connection counted is not counted again."""
        self._count_prompt(delta)
        before = self._usage.cached_tokens
        self._usage.add(delta)
        if not delta.is_replayed:
            self._account.usage.completion_tokens += delta.num_generated
            self._account.usage.cached_tokens += self._usage.cached_tokens - before

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

    async def _fail(self, send: Send, error: Exception) -> None:
        """A full engine does not know when there will be room, this gateway's queue does."""
        told = api_error(error)
        if told.retry_after_s is not None:
            told.retry_after_s = max(told.retry_after_s, self._entry.queue.retry_after_s())
        await self._tell(send, told)

    async def _whole(self, send: Send, first: Delta, deltas: AsyncGenerator[Delta, None]) -> None:
        plan = self._plan
        try:
            async for delta in _chained(first, deltas):
                plan.choices[delta.index].add(delta)
        except Exception as error:
            await self._fail(send, error)
            return
        # Log-probabilities take microseconds each, and there may be a million of them.
        in_thread = any(choice.wants_logprobs for choice in plan.choices)
        body = await asyncio.to_thread(self._body) if in_thread else self._body()
        await send_whole(send, 200, body, {"x-request-id": plan.head.id})

    def _body(self) -> bytes:
        return orjson.dumps(whole_body(self._plan, self._usage))

    async def _stream(self, send: Send, first: Delta, deltas: AsyncGenerator[Delta, None]) -> None:
        plan = self._plan
        await self._begin_stream(send)
        try:
            async for delta in _chained(first, deltas):
                chunks = plan.choices[delta.index].add(delta)
                new = self._cursor.new(delta.index, delta.num_generated, len(chunks))
                await self._send_events(
                    send, b"".join(self._event(name, [chunks[i]]) for name, i in new)
                )
        except Exception as error:
            await self._fail(send, error)
            return
        end = self._cursor.end() if plan.include_usage else None
        tail = self._event(end, [], self._usage.body()) if end is not None else b""
        await send_part(send, tail + DONE, more=False)

    def _event(self, name: str, choices: list[Any], usage: dict[str, Any] | None = None) -> bytes:
        body = self._plan.head.body(self._plan.chunk_object, choices)
        if self._plan.include_usage:
            body["usage"] = usage
        return event(body, name)


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
    if isinstance(error, PoisonError):
        return ApiError(503, said, code="poison_request")
    if isinstance(error, GenerationError):
        return ApiError(500, said)
    raise error


def whole_body(plan: Plan, usage: Usage) -> dict[str, Any]:
    """The answer as one object, once all choices have come to their end."""
    return {**plan.head.body(plan.object, _choice_bodies(plan)), "usage": usage.body()}


def _choice_bodies(plan: Plan) -> list[dict[str, Any]]:
    choices = list(plan.choices)
    if plan.keep_best is None:
        return [choice.body() for choice in choices]
    best: list[TextChoice] = []
    for start in range(0, len(choices), plan.per_prompt):
        group = [c for c in choices[start : start + plan.per_prompt] if isinstance(c, TextChoice)]
        best += sorted(group, key=lambda c: -c.mean_logprob)[: plan.keep_best]
    return [{**choice.body(), "index": i} for i, choice in enumerate(best)]


def event(value: Any, name: str = "") -> bytes:
    """One server-sent event, and its id where it has one."""
    data = orjson.dumps(value)
    if not data.isascii():
        for raw, escaped in _LINE_ENDS:
            data = data.replace(raw, escaped)
    numbered = b"\nid: " + name.encode() if name else b""
    return b"data: " + data + numbered + b"\n\n"


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
    """JSON, or the bytes of some; in pieces, as the server would copy it whole, several times."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    raw = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    raw += [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        await send_part(send, piece, more=start + len(piece) < len(body))


def json_response(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
