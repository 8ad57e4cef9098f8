"""Tokens between a model replica and a gateway: one TCP connection each way-pair, one frame per
engine step, whatever the number of requests.

A Serve call starts a request and lasts as long as it runs, so that Serve counts, routes, drains and
notices the death of a replica. Its tokens do not travel through that call: a replica connects once
to each gateway that sends it requests and writes the steps of all that gateway's requests there.
On the same connection the gateway writes cancellations. When it breaks, the replica cancels that
gateway's requests, and the gateway learns of the replica's end from the Serve call.

Frames are a 4-byte big-endian length and JSON. The first frame is the gateway's secret.
"""

import asyncio
import hmac
import secrets
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from apps.serve.engine.protocol import (
    Grammar,
    Outbox,
    Request,
    SamplingParams,
    Step,
    TokenLogprob,
)

_HEADER = struct.Struct(">I")
_MAX_FRAME_BYTES = 64 << 20


class GatewayAddress(NamedTuple):
    """Where a gateway receives steps."""

    host: str
    port: int
    secret: str


def encode_request(request: Request) -> bytes:
    return orjson.dumps(request, option=orjson.OPT_NON_STR_KEYS)


def decode_request(data: bytes) -> Request:
    """Inverse of `encode_request`."""
    values = orjson.loads(data)
    params = values.pop("params")
    if params["grammar"] is not None:
        params["grammar"] = Grammar(**params["grammar"])
    params["logit_bias"] = {int(token): bias for token, bias in params["logit_bias"].items()}
    params["stop_token_ids"] = tuple(params["stop_token_ids"])
    values["prompt_ids"] = tuple(values["prompt_ids"])
    values["generated_ids"] = tuple(values["generated_ids"])
    return Request(params=SamplingParams(**params), **values)


def encode_steps(steps: list[Step]) -> bytes:
    return orjson.dumps([list(step) for step in steps], default=list)


def decode_steps(data: bytes) -> list[Step]:
    """Inverse of `encode_steps`."""
    return [_step(row) for row in orjson.loads(data)]


def _step(row: list[Any]) -> Step:
    request_id, token_ids, logprobs, finish_reason, cached_tokens, error, prompt_logprobs = row
    return Step(
        request_id,
        tuple(token_ids),
        _logprobs(logprobs),
        finish_reason,
        cached_tokens,
        error,
        _logprobs(prompt_logprobs),
    )


def _logprobs(rows: list[Any]) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(value, tuple((i, p) for i, p in top)) for value, top in rows)


class StepReceiver:
    """The gateway's end: accepts replicas' connections and hands steps to `on_step`."""

    def __init__(self, on_step: Callable[[Step], None]) -> None:
        self._on_step = on_step
        self._secret = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None
        self._writer_of: dict[str, asyncio.StreamWriter] = {}

    async def start(self, host: str) -> GatewayAddress:
        self._server = await asyncio.start_server(self._serve, host, 0)
        port = self._server.sockets[0].getsockname()[1]
        return GatewayAddress(host, port, self._secret)

    def cancel(self, request_id: str) -> None:
        """Ask the request's replica to stop; nothing happens before its first step arrived."""
        writer = self._writer_of.pop(request_id, None)
        if writer is not None and not writer.is_closing():
            writer.write(_frame(orjson.dumps(request_id)))

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = await asyncio.wait_for(_read_frame(reader, limit=4096), 10)
            if not hmac.compare_digest(hello, self._secret.encode()):
                return
            while True:
                for step in decode_steps(await _read_frame(reader)):
                    if step.finish_reason is None:
                        self._writer_of[step.request_id] = writer
                    else:
                        self._writer_of.pop(step.request_id, None)
                    self._on_step(step)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return  # the Serve calls of this replica tell each request what happened
        finally:
            self._writer_of = {k: w for k, w in self._writer_of.items() if w is not writer}
            writer.close()


class StepSender:
    """A replica's end of the connection to one gateway."""

    def __init__(self, on_cancel: Callable[[str], None]) -> None:
        self.outbox = Outbox()
        self._on_cancel = on_cancel
        self._done: dict[str, asyncio.Future[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, address: GatewayAddress) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(_frame(address.secret.encode()))
        self._tasks = [
            asyncio.create_task(self._write(writer)),
            asyncio.create_task(self._read(reader, writer)),
        ]

    @property
    def is_open(self) -> bool:
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def open(self, request_id: str) -> asyncio.Future[None]:
        """A future that resolves when the request's last step has been written."""
        self._done[request_id] = asyncio.get_running_loop().create_future()
        return self._done[request_id]

    def forget(self, request_id: str) -> None:
        self._done.pop(request_id, None)

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        try:
            async for steps in self.outbox:
                writer.write(_frame(encode_steps(steps)))
                for step in steps:
                    if step.finish_reason is not None:
                        self._resolve(step.request_id)
                await writer.drain()
        except Exception as error:
            self._lost(error)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self._on_cancel(orjson.loads(await _read_frame(reader)))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._lost(ConnectionError("the gateway closed its connection"))
        finally:
            writer.close()

    def _resolve(self, request_id: str) -> None:
        done = self._done.pop(request_id, None)
        if done is not None and not done.done():
            done.set_result(None)

    def _lost(self, error: Exception) -> None:
        """Nobody reads any more: free the slots and end the calls."""
        for request_id, done in list(self._done.items()):
            self._on_cancel(request_id)
            if not done.done():
                done.set_exception(error)
        self._done.clear()


def _frame(payload: bytes) -> bytes:
    return _HEADER.pack(len(payload)) + payload


async def _read_frame(reader: asyncio.StreamReader, limit: int = _MAX_FRAME_BYTES) -> bytes:
    (size,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if size > limit:
        raise ConnectionError(f"a frame of {size} bytes is larger than {limit}")
    return await reader.readexactly(size)
