"""Answers of a model that runs on somebody else's OpenAI-compatible server.

The request was checked like any other; it is sent on as the client wrote it, and the answer comes
back under the name that the model has here.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import aiohttp
from starlette.types import Send

from apps.serve.config import ModelConfig
from apps.serve.engine.protocol import OverloadedError
from apps.serve.engine.remote import RemoteAnswer, RemoteEngine
from apps.serve.errors import ApiError
from apps.serve.metrics import GatewayMetrics
from apps.serve.schemas import ChatRequest, CompletionRequest
from apps.serve.sse import (
    DONE,
    SSE_HEADERS,
    WatchedResponse,
    api_error,
    event,
    send_part,
    send_whole,
)

_ROUTES = {"chat": "chat/completions", "completions": "completions"}


class ForwardedAnswer(WatchedResponse):
    """One request to a remote model; leaving early cancels it there."""

    def __init__(
        self,
        body: ChatRequest | CompletionRequest,
        model: ModelConfig,
        engine: RemoteEngine,
        start_s: float,
        metrics: GatewayMetrics,
    ) -> None:
        endpoint = "chat" if isinstance(body, ChatRequest) else "completions"
        super().__init__(model, endpoint, start_s, metrics)
        self._body = body.model_dump(mode="json", exclude_unset=True, by_alias=True)
        self._engine = engine

    async def _respond(self, send: Send) -> None:
        async with contextlib.AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(
                    self._engine.send(_ROUTES[self._endpoint], self._body)
                )
            except (OverloadedError, aiohttp.ClientError, TimeoutError) as error:
                await self._send_error(send, _unreachable(self._config, error))
                return
            self._status = answer.status
            if answer.body is not None:
                await send_whole(send, answer.status, self._renamed(answer.body), {})
            else:
                await self._stream(send, answer)

    async def _stream(self, send: Send, answer: RemoteAnswer) -> None:
        await send({"type": "http.response.start", "status": answer.status, "headers": SSE_HEADERS})
        tail = b""
        try:
            async for chunk in answer.events():
                await send_part(send, event(self._renamed(chunk)))
        except (ValueError, aiohttp.ClientError, TimeoutError) as error:
            found = _unreachable(self._config, error)
            self._status = found.status
            tail = event(found.body())
        await send_part(send, tail + DONE, more=False)

    def _renamed(self, value: dict[str, Any]) -> dict[str, Any]:
        self._count_usage(value.get("usage"))
        return {**value, "model": self._config.name} if "model" in value else value

    def _count_usage(self, usage: Any) -> None:
        if isinstance(usage, Mapping):
            self._usage.prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self._usage.completion_tokens = int(usage.get("completion_tokens") or 0)


def _unreachable(model: ModelConfig, error: Exception) -> ApiError:
    if isinstance(error, OverloadedError):
        return api_error(error)
    return ApiError(
        502, f"The server of {model.name!r} did not answer properly ({type(error).__name__})."
    )
