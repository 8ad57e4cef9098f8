"""Where the gateway gets a request's tokens from: a model's replicas."""

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from apps.common.errors import CriaError
from apps.serve.config import GatewayConfig
from apps.serve.engine.protocol import (
    EngineDeadError,
    OverloadedError,
    Request,
    RequestError,
    Step,
)
from apps.serve.replica.kept import Kept, request_digest
from apps.serve.replica.replica import refusal_error
from apps.serve.replica.wire import (
    Connection,
    GatewayAddress,
    StepReceiver,
    decode_kept,
    encode_request,
)

logger = logging.getLogger("ray.serve")

SILENT_REPLICAS: set[str] = set()
"""Ids of those not heard of for too long; of the whole process, as Serve makes routers itself."""

_LAST_STEP_TIMEOUT_S = 5.0


class ReplicaLostError(CriaError):
    """The replica ended before the request did; another one can continue it."""


class ReplicaDeadError(ReplicaLostError):
    """The replica's engine was dead before the request came, which so is not the cause."""


class Backend(Protocol):
    def steps(self, request: Request, unread: list[Step]) -> AsyncGenerator[Step, None]:
        """Steps of one request. Leaving early cancels it, and adds those that had come by then to
        `unread`: of a request that a replica has taken in, an empty one where none had.

        Raises RequestError, OverloadedError or ReplicaLostError.
        """
        ...

    async def kept(self, request: Request) -> Kept | None:
        """What a replica remembers of the answer to it."""
        ...


class Exchange:
    """Hands the steps that replicas send to the requests that wait for them."""

    def __init__(self, on_tokens: Callable[[str, int], None] = lambda *_: None) -> None:
        """`on_tokens(application, number)` is told of every token, wanted or not."""
        self.silence_timeout_s = GatewayConfig().silence_timeout_s
        self._on_tokens = on_tokens
        self._inboxes: dict[str, _Inbox] = {}
        self._receiver = StepReceiver(self)
        self.address: GatewayAddress | None = None

    async def start(self, host: str) -> None:
        self.address = await self._receiver.start(host)

    async def close(self) -> None:
        await self._receiver.close()

    def open(self, request_id: str, application: str) -> "_Inbox":
        inbox = self._inboxes[request_id] = _Inbox(application)
        return inbox

    def close_inbox(self, request_id: str) -> None:
        """Also stops a request that has not finished, if a replica has taken it in."""
        inbox = self._inboxes.pop(request_id)
        if inbox.connection is not None and not inbox.is_finished:
            inbox.connection.cancel(request_id)

    def on_accept(self, request_id: str, connection: Connection) -> None:
        """The first that takes a request in answers it: Serve sends a call again when it does not
        know what became of it. Nobody waits for one that was silent for long."""
        inbox = self._inboxes.get(request_id)
        if inbox is not None and inbox.connection is None:
            inbox.connection = connection
        if inbox is None or inbox.connection is not connection:
            connection.cancel(request_id)

    def on_step(self, step: Step, connection: Connection) -> None:
        self._on_tokens(connection.replica.application, len(step.token_ids))
        inbox = self._inboxes.get(step.request_id)
        if inbox is not None and inbox.connection is connection:
            inbox.put(step)

    def on_silence(self, connection: Connection) -> None:
        """Its requests, and those that may be on their way to it, have to go elsewhere."""
        replica = connection.replica
        logger.warning("the replica %s, or its engine, has fallen silent", replica.id)
        SILENT_REPLICAS.add(replica.id)
        for inbox in self._inboxes.values():
            if inbox.is_finished:
                continue
            if inbox.connection is connection:
                inbox.is_silent = True
                inbox.fail(ReplicaLostError("the model's replica has fallen silent"))
            elif inbox.connection is None and inbox.application == replica.application:
                inbox.is_silent = True
                inbox.fail(ReplicaDeadError("no replica of the model took the request in"))

    def on_sound(self, connection: Connection) -> None:
        SILENT_REPLICAS.discard(connection.replica.id)


class _Inbox:
    """Steps of one request, in order, then possibly an error."""

    def __init__(self, application: str) -> None:
        self.application = application
        self.connection: Connection | None = None
        """Of the replica that has taken the request in."""
        self.is_silent = False
        """Whether that replica, or the one it may be on its way to, has fallen silent."""
        self.has_begun = False
        self.steps: deque[Step] = deque()
        """that were not taken yet"""
        self._error: Exception | None = None
        self._ready = asyncio.Event()
        self.is_finished = False

    def put(self, step: Step) -> None:
        self.steps.append(step)
        self.has_begun = True
        self.is_finished = step.finish_reason is not None
        self._ready.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._ready.set()

    async def take(self) -> Step:
        """The next one. Raises the error after the last of them."""
        await self._ready.wait()
        if not self.steps and self._error is not None:
            raise self._error
        step = self.steps.popleft()
        if not self.steps and self._error is None:
            self._ready.clear()
        return step


AskAll = Callable[..., Awaitable[Sequence[Any]]]
"""`ask_all(method, *arguments)`: the answers of all replicas that give one in time."""


class ReplicaBackend:
    """A model's replicas, reached through the handle of its Serve application."""

    def __init__(
        self, handle: Any, exchange: Exchange, application: str, ask_all: AskAll | None = None
    ) -> None:
        self._handle = handle
        self._exchange = exchange
        self._application = application
        self._ask_all = ask_all

    async def kept(self, request: Request) -> Kept | None:
        """Of several replicas, from the one that came farthest."""
        if self._ask_all is None:
            return None
        answers = await self._ask_all("kept", request.id, request_digest(request))
        found = [decode_kept(answer) for answer in answers if answer is not None]
        return max(found, key=lambda kept: len(kept.token_ids), default=None)

    async def steps(self, request: Request, unread: list[Step]) -> AsyncGenerator[Step, None]:
        inbox = self._exchange.open(request.id, self._application)
        handle = self._handle.options(session_id=request.conversation)
        # Serve tells calls apart by the HTTP request in whose context they are made, and would give
        # only one choice of an answer a replica.
        response = contextvars.Context().run(
            handle.generate.remote, encode_request(request), self._exchange.address
        )
        call = asyncio.ensure_future(_watch(response, inbox))
        finished = False
        try:
            while not finished:
                step = await inbox.take()
                finished = step.finish_reason is not None
                yield step
        finally:
            unread += inbox.steps
            if inbox.connection is not None and not inbox.has_begun:
                unread.append(Step(request.id, ()))
            self._exchange.close_inbox(request.id)
            # A replica that has begun was told on its connection. A silent one must not be told by
            # Ray, which does not kill a process any more that a cancellation could not reach.
            if not inbox.has_begun and not inbox.is_silent:
                response.cancel()
            del call  # held until here: the loop itself keeps only weak references to tasks


async def _watch(response: Any, inbox: _Inbox) -> None:
    """Turn the end of the Serve call into an error, unless the last step arrives by then."""
    try:
        refusal = await response
    except asyncio.CancelledError:
        raise
    except Exception as error:
        inbox.fail(_serve_error(error))
        return
    if refusal is not None:
        error = refusal_error(refusal)
        lost = isinstance(error, EngineDeadError)
        inbox.fail(ReplicaDeadError(str(error)) if lost else error)
        return
    if not inbox.is_finished:
        error = ReplicaLostError("the connection to the replica broke before the last token")
        asyncio.get_running_loop().call_later(_LAST_STEP_TIMEOUT_S, inbox.fail, error)


def _serve_error(error: Exception) -> Exception:
    cause = getattr(error, "cause", error)
    if isinstance(cause, RequestError | OverloadedError):
        return cause
    if type(error).__name__ == "BackPressureError":
        return OverloadedError("All replicas of this model are busy; try again later.", 1.0)
    return ReplicaLostError(f"the model's replica was lost ({type(error).__name__})")
