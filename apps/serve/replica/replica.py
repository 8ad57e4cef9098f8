"""An engine behind one Serve replica: takes requests, sends each gateway its tokens.

No Ray in here: `deployment.py` wraps this class.
"""

import asyncio
from typing import Any

from apps.serve.engine.protocol import Engine, EngineDeadError, OverloadedError, RequestError
from apps.serve.replica.kept import KeptAnswers
from apps.serve.replica.wire import (
    GatewayAddress,
    ReplicaName,
    StepSender,
    decode_request,
    encode_kept,
)

_OTHER_TOKENS = "the model's tokenizer is being changed, and this replica has another"
"""Gateways and replicas take new files at different times; ids of the other would be nonsense."""


class ModelReplica:
    """Runs requests of any number of gateways on one engine."""

    def __init__(self, engine: Engine, name: ReplicaName, tokenizer: str = "") -> None:
        """`tokenizer` is the digest of the model's; "": it is not known."""
        self.engine = engine
        self.name = name
        self._tokenizer = tokenizer
        self._submitting: set[str] = set()
        self._answers = KeptAnswers()
        self._senders: dict[GatewayAddress, asyncio.Task[StepSender]] = {}

    async def generate(self, payload: bytes, address: GatewayAddress) -> dict[str, Any] | None:
        """Run one request; its steps go to `address`. Returns when the last one was sent, or at
        once a mapping that `refusal_error` turns into the error it describes."""
        request = decode_request(payload)
        if self._tokenizer and request.tokenizer not in ("", self._tokenizer):
            return _refusal(EngineDeadError(_OTHER_TOKENS))
        sender = await self._sender(address)
        if (running := sender.done(request.id)) is not None:  # the same call, sent again
            await asyncio.shield(running)
            return None
        done = sender.open(request.id)
        if (earlier := self._answers.begin(request)) is not None:
            self._cancel(earlier)  # its gateway is lost, or has given it up
        self._submitting.add(request.id)
        try:
            await self.engine.submit(request, sender.outbox)
        except BaseException as error:
            sender.forget(request.id)
            self._submitting.discard(request.id)
            if isinstance(error, RequestError | OverloadedError | EngineDeadError):
                return _refusal(error)
            raise
        try:
            if request.id not in self._submitting:
                self.engine.cancel(request.id)
            self._submitting.discard(request.id)
            await done
        finally:
            self.engine.cancel(request.id)
        return None

    def kept(self, name: str, digest: str) -> bytes | None:
        """What is remembered of an answer, see kept.py; `decode_kept` reads it."""
        kept = self._answers.find(name, digest)
        return encode_kept(kept) if kept is not None else None

    def _cancel(self, request_id: str) -> None:
        """Also of a request that the engine is yet to take."""
        self._submitting.discard(request_id)
        self.engine.cancel(request_id)

    async def _sender(self, address: GatewayAddress) -> StepSender:
        task = self._senders.get(address)
        if task is None or (task.done() and (task.exception() or not task.result().is_open)):
            task = asyncio.create_task(self._connect(address))
            self._senders[address] = task
        return await asyncio.shield(task)

    async def _connect(self, address: GatewayAddress) -> StepSender:
        sender = StepSender(
            self.name, self._cancel, self._answers.add, lambda: self.engine.is_silent()
        )
        await sender.connect(address)
        return sender


def _refusal(error: RequestError | OverloadedError | EngineDeadError) -> dict[str, Any]:
    if isinstance(error, RequestError):
        return {
            "kind": "request",
            "message": str(error),
            "param": error.param,
            "code": error.code,
        }
    if isinstance(error, OverloadedError):
        return {
            "kind": "overloaded",
            "message": str(error),
            "retry_after_s": error.retry_after_s,
        }
    return {"kind": "dead", "message": str(error)}


def refusal_error(refusal: dict[str, Any]) -> Exception:
    """Inverse of the mapping that `ModelReplica.generate` returns."""
    if refusal["kind"] == "request":
        return RequestError(refusal["message"], refusal["param"], refusal["code"])
    if refusal["kind"] == "overloaded":
        return OverloadedError(refusal["message"], refusal["retry_after_s"])
    return EngineDeadError(refusal["message"])
