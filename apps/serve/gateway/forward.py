"""Answers of a model that runs on somebody else's OpenAI-compatible server.

The request was checked like any other; it is sent on as the client wrote it, and the answer comes
back under the name that the model has here.
"""

import contextlib
from collections.abc import Mapping

import aiohttp
from starlette.types import Send

from apps.serve.config import ModelConfig
from apps.serve.engine.protocol import OverloadedError
from apps.serve.engine.remote import RemoteAnswer
from apps.serve.errors import ApiError
from apps.serve.gateway.account import Account
from apps.serve.gateway.respond import (
    DONE,
    SSE_HEADERS,
    WatchedResponse,
    api_error,
    event,
    send_part,
    send_whole,
)
from apps.serve.model.entry import RemoteEntry
from apps.serve.request.sampling import max_tokens, num_choices
from apps.serve.request.schemas import ChatRequest, CompletionRequest


class ForwardedAnswer(WatchedResponse):
    """One request to a remote model; leaving early cancels it there."""

    def __init__(
        self, account: Account, body: ChatRequest | CompletionRequest, entry: RemoteEntry
    ) -> None:
        self._body = limited_body(body, entry.config)
        super().__init__(account, entry.config)
        self._config = entry.config
        self._engine = entry.engine
        self._route = "chat/completions" if isinstance(body, ChatRequest) else "completions"

    async def _respond(self, send: Send) -> None:
        async with contextlib.AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._engine.send(self._route, self._body))
            except (OverloadedError, aiohttp.ClientError, TimeoutError) as error:
                await self._send_error(send, unreachable(self._config, error))
                return
            if is_our_fault(answer.status):
                await self._send_error(send, refused(self._config, answer.status))
            elif answer.body is not None:
                await send_whole(send, answer.status, self._renamed(answer.body), answer.headers)
            else:
                await self._stream(send, answer)

    async def _stream(self, send: Send, answer: RemoteAnswer) -> None:
        await send({"type": "http.response.start", "status": answer.status, "headers": SSE_HEADERS})
        tail = b""
        try:
            async for chunk in answer.events():
                await send_part(send, event(self._renamed(chunk)))
        except (ValueError, aiohttp.ClientError, TimeoutError) as error:
            failure = unreachable(self._config, error)
            self._account.fail(failure)
            tail = event(failure.body())
        await send_part(send, tail + DONE, more=False)

    def _renamed(self, value: dict[str, object]) -> dict[str, object]:
        self._count_usage(value.get("usage"))
        return {**value, "model": self._config.name} if "model" in value else value

    def _count_usage(self, usage: object) -> None:
        if isinstance(usage, Mapping):
            self._account.usage.prompt_tokens = token_count(usage.get("prompt_tokens"))
            self._account.usage.completion_tokens = token_count(usage.get("completion_tokens"))


def limited_body(body: ChatRequest | CompletionRequest, model: ModelConfig) -> dict[str, object]:
    """The body as the client wrote it, with the model's limit of tokens where it names none.

    Raises ApiError 400 where it asks for more than the limits allow.
    """
    best_of = body.best_of if isinstance(body, CompletionRequest) else None
    num_choices(max(body.n or 1, best_of or 1), model)
    most = max_tokens(body, model)
    values = body.model_dump(mode="json", exclude_unset=True, by_alias=True)
    names = ("max_tokens", "max_completion_tokens")
    if model.limits.max_output_tokens is not None and all(values.get(n) is None for n in names):
        values["max_tokens"] = most
    return values


def token_count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def is_our_fault(status: int) -> bool:
    """The key sent there is this service's; its clients' own was checked before."""
    return status in (401, 403, 407) or 300 <= status < 400


def refused(model: ModelConfig, status: int) -> ApiError:
    """Nothing of what it said: it may show parts of this service's own key."""
    return ApiError(
        502, f"The server of {model.name!r} answered {status}; check base_url and its key here."
    )


def unreachable(model: ModelConfig, error: Exception) -> ApiError:
    if isinstance(error, OverloadedError):
        return api_error(error)
    return ApiError(
        502, f"The server of {model.name!r} did not answer properly ({type(error).__name__})."
    )
