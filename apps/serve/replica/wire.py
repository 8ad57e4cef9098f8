"""How tokens come from a model's replica to a gateway: one TCP connection for each such pair.

A Serve call starts a request and lasts as long as the request runs. By it Serve counts, routes and
drains, and the gateway learns that the replica died. The tokens go another way, because a Serve
call for each would cost more than the tokens: the replica connects once to each gateway that sends
it requests, and after each engine step it writes one frame with what all of them got.

A frame is its length (4 bytes, big-endian) and JSON:

    replica   secret ["app", "id"]            its first frame: the gateway's secret, and who it is
    replica   "chatcmpl-1-0.0"                it has taken this request in
    replica   [["chatcmpl-1-0.0", [57], ...]] steps, of any number of requests
    replica   []                              it is alive: every HEARTBEAT_S, however long a step is
    replica   null                            the same, but its engine has fallen silent
    gateway   "chatcmpl-1-0.0"                stop this request

When the connection breaks, the replica stops that gateway's requests.
"""

import asyncio
import hmac
import secrets
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import orjson

from apps.serve.engine.protocol import (
    Grammar,
    Outbox,
    Request,
    SamplingParams,
    Step,
    TokenLogprob,
)
from apps.serve.replica.kept import Kept

HEARTBEAT_S = 1.0
_WATCH_S = 0.25
_HEADER = struct.Struct(">I")
_MAX_FRAME_BYTES = 64 << 20


class GatewayAddress(NamedTuple):
    """Where a gateway receives steps."""

    host: str
    port: int
    secret: str


class ReplicaName(NamedTuple):
    """Which replica of which Serve application."""

    application: str
    id: str


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


def decode_steps(rows: list[Any]) -> list[Step]:
    """Inverse of `encode_steps`, from its parsed JSON."""
    return [_step(row) for row in rows]


def encode_kept(kept: Kept) -> bytes:
    return orjson.dumps(
        [kept.digest, kept.token_ids, kept.logprobs, kept.finish_reason], default=list
    )


def decode_kept(data: bytes) -> Kept:
    """Inverse of `encode_kept`."""
    digest, token_ids, logprobs, finish_reason = orjson.loads(data)
    return Kept(digest, "", token_ids, list(_logprobs(logprobs)), finish_reason)


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


class Connection:
    """The gateway's end of one replica's connection."""

    def __init__(self, replica: ReplicaName, writer: asyncio.StreamWriter) -> None:
        self.replica = replica
        self.quiet_periods = 0
        self.is_silent = False
        self._writer = writer

    def cancel(self, request_id: str) -> None:
        """Ask the replica to stop."""
        if not self._writer.is_closing():
            self._writer.write(_frame(orjson.dumps(request_id)))


class Listener(Protocol):
    """What a gateway does with what replicas send."""

    silence_timeout_s: float

    def on_accept(self, request_id: str, connection: Connection) -> None: ...

    def on_step(self, step: Step, connection: Connection) -> None: ...

    def on_silence(self, connection: Connection) -> None:
        """Nothing has come for `silence_timeout_s`, or nothing comes from the replica's engine."""
        ...

    def on_sound(self, connection: Connection) -> None:
        """The silence ended, be it with the connection."""
        ...


class StepReceiver:
    """The gateway's end: accepts replicas' connections and tells `listener` what comes."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._secret = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, host: str) -> GatewayAddress:
        self._server = await asyncio.start_server(self._serve, host, 0)
        self._watcher = asyncio.create_task(self._watch())
        port = self._server.sockets[0].getsockname()[1]
        return GatewayAddress(host, port, self._secret)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._watcher is not None:
            self._watcher.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = None
        try:
            hello = await asyncio.wait_for(_read_frame(reader, limit=4096), 10)
            secret, _, name = hello.partition(b" ")
            if not hmac.compare_digest(secret, self._secret.encode()):
                return
            connection = Connection(ReplicaName(*orjson.loads(name)), writer)
            self._connections.add(connection)
            while True:
                self._hear(orjson.loads(await _read_frame(reader)), connection)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return  # the Serve calls of this replica tell each request what happened
        finally:
            if connection is not None:
                self._connections.discard(connection)
                self._end_silence(connection)
            writer.close()

    def _hear(self, frame: list[Any] | str | None, connection: Connection) -> None:
        connection.quiet_periods = 0
        if frame is None:
            self._begin_silence(connection)
            return
        if isinstance(frame, str):  # which says nothing of its engine
            self._listener.on_accept(frame, connection)
            return
        self._end_silence(connection)
        for step in decode_steps(frame):
            self._listener.on_step(step, connection)

    async def _watch(self) -> None:
        """Periods are counted, not seconds, so that a pause of this process is nobody's silence."""
        while True:
            await asyncio.sleep(_WATCH_S)
            for connection in self._connections:
                connection.quiet_periods += 1
                quiet_s = connection.quiet_periods * _WATCH_S
                if quiet_s >= self._listener.silence_timeout_s:
                    self._begin_silence(connection)

    def _begin_silence(self, connection: Connection) -> None:
        if not connection.is_silent:
            connection.is_silent = True
            self._listener.on_silence(connection)

    def _end_silence(self, connection: Connection) -> None:
        if connection.is_silent:
            connection.is_silent = False
            self._listener.on_sound(connection)


class StepSender:
    """A replica's end of the connection to one gateway."""

    def __init__(
        self,
        replica: ReplicaName,
        on_cancel: Callable[[str], None],
        on_step: Callable[[Step], None],
        is_silent: Callable[[], bool],
    ) -> None:
        """`on_step` sees what is about to be sent; `is_silent` tells of the engine."""
        self.outbox = Outbox()
        self._replica = replica
        self._on_cancel = on_cancel
        self._on_step = on_step
        self._is_silent = is_silent
        self._done: dict[str, asyncio.Future[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, address: GatewayAddress) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(_frame(address.secret.encode() + b" " + orjson.dumps([*self._replica])))
        self._writer = writer
        self._tasks = [
            asyncio.create_task(self._write(writer)),
            asyncio.create_task(self._beat(writer)),
            asyncio.create_task(self._read(reader, writer)),
        ]

    @property
    def is_open(self) -> bool:
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def open(self, request_id: str) -> asyncio.Future[None]:
        """Tell that the request is taken in; a future that resolves when its last step has been
        written. Raises ConnectionError when nobody reads any more."""
        if not self.is_open:
            raise ConnectionError("the gateway has closed its connection")
        self._writer.write(_frame(orjson.dumps(request_id)))
        self._done[request_id] = asyncio.get_running_loop().create_future()
        return self._done[request_id]

    def done(self, request_id: str) -> asyncio.Future[None] | None:
        """What `open` gave for a request that is running."""
        return self._done.get(request_id)

    def forget(self, request_id: str) -> None:
        self._done.pop(request_id, None)

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        try:
            async for steps in self.outbox:
                for step in steps:
                    self._on_step(step)
                writer.write(_frame(encode_steps(steps)))
                for step in steps:
                    if step.finish_reason is not None:
                        self._resolve(step.request_id)
                await writer.drain()
        except Exception as error:
            self._lost(error)

    async def _beat(self, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(_frame(b"null" if self._is_silent() else b"[]"))
            await asyncio.sleep(HEARTBEAT_S)

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
