"""Answers of a model that runs on somebody else's OpenAI-compatible server.

The request was checked like any other; it is sent on as the client wrote it, and the answer comes
back under the name that the model has here.
"""

import contextlib
from collections.abc import Mapping

import aiohttp
import orjson
from starlette.types import Send

from apps.serve.config import ModelConfig
from apps.serve.engine.protocol import OverloadedError
from apps.serve.engine.remote import RemoteAnswer
from apps.serve.errors import ApiError
from apps.serve.gateway.account import Account
from apps.serve.gateway.respond import (
    DONE,
    LivingResponse,
    api_error,
    event,
    send_part,
    send_whole,
)
from apps.serve.gateway.tally import Tally
from apps.serve.model.entry import RemoteEntry
from apps.serve.request.sampling import max_tokens, num_choices
from apps.serve.request.schemas import ChatRequest, CompletionRequest

_MAX_MESSAGE_CHARS = 4096


class ForwardedAnswer(LivingResponse):
    """One request to a remote model; leaving early cancels it there."""

    def __init__(
        self, account: Account, body: ChatRequest | CompletionRequest, entry: RemoteEntry
    ) -> None:
        self._body = limited_body(body, entry.config)
        super().__init__(account, entry.config, id="")
        self._config = entry.config
        self._engine = entry.engine
        self._route = "chat/completions" if isinstance(body, ChatRequest) else "completions"
        self._is_stream, self._include_usage = bool(body.stream), body.wants_usage

    async def _respond(self, send: Send) -> None:
        tally = Tally(self._body)
        self._account.usage = tally.usage
        async with self._with_comments(send, self._is_stream), contextlib.AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._engine.send(self._route, self._body))
            except (OverloadedError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                tally.nothing()
                await self._tell(send, unreachable(self._config, error))
                return
            if (error := self._error(answer)) is not None:
                tally.nothing()
                await self._tell(send, error)
                return
            if answer.body is None:
                await self._stream(send, answer, tally)
            else:
                tally.take(answer.body)
                self._account.first_token()
                await send_whole(send, answer.status, self._renamed(answer.body), {})

    def _error(self, answer: RemoteAnswer) -> ApiError | None:
        """None where it is an answer of the kind that was asked for."""
        if answer.status >= 400 and not is_our_fault(answer.status):
            error = foreign_refusal(answer.status, answer.body)
            error.retry_after_s = answer.retry_after_s
            return error
        is_stream = answer.body is None
        is_whole = answer.body is not None and isinstance(answer.body.get("choices"), list)
        if answer.status == 200 and (is_stream if self._is_stream else is_whole):
            return None
        return refused(self._config, answer.status)

    async def _stream(self, send: Send, answer: RemoteAnswer, tally: Tally) -> None:
        await self._begin_stream(send)
        tail, has_token = b"", False
        try:
            async for chunk in answer.events():
                if tally.take(chunk) and not has_token:
                    has_token = True
                    self._account.first_token()
                if "error" in chunk:
                    self._account.fail(foreign_refusal(502, chunk))
                if (told := self._as_asked(chunk)) is not None:
                    await self._send_events(send, event(self._renamed(told)))
        except (ValueError, aiohttp.ClientError, TimeoutError) as error:
            failure = unreachable(self._config, error)
            self._account.fail(failure)
            tail = event(failure.body())
        finally:  # the client may have left before all of it
            tally.take_all(answer.untaken())
        await send_part(send, tail + DONE, more=False)

    def _as_asked(self, chunk: Mapping[str, object]) -> Mapping[str, object] | None:
        """Without the usage, which is asked for whether the client wants it or not."""
        if self._include_usage or "usage" not in chunk:
            return chunk
        rest = {name: value for name, value in chunk.items() if name != "usage"}
        return rest if chunk.get("choices") or "error" in chunk else None

    def _renamed(self, value: Mapping[str, object]) -> dict[str, object]:
        return {**value, **({"model": self._config.name} if "model" in value else {})}


def limited_body(body: ChatRequest | CompletionRequest, model: ModelConfig) -> dict[str, object]:
    """The body as the client wrote it. Where it names no most tokens, it gets the model's limit, or
    a completion's 16: servers differ there.

    Raises ApiError 400 where it asks for more than the limits allow.
    """
    best_of = body.best_of if isinstance(body, CompletionRequest) else None
    num_choices(max(body.n or 1, best_of or 1), model)
    most = max_tokens(body, model)
    values = body.model_dump(mode="json", exclude_unset=True, by_alias=True)
    if model.engine == "remote" and not model.options.get("continues"):
        values.pop("break_role_marks", None)  # as OpenAI's, it may refuse what it does not know
    if values.get("max_completion_tokens") is not None:  # servers differ in which of two they obey
        values.pop("max_tokens", None)
    names = ("max_tokens", "max_completion_tokens")
    if most is not None and all(values.get(name) is None for name in names):
        values["max_tokens"] = most
    return values


def is_our_fault(status: int) -> bool:
    """The key sent there is this service's; its clients' own was checked before."""
    return status in (401, 403, 407) or 300 <= status < 400


def foreign_refusal(status: int, body: Mapping[str, object] | None) -> ApiError:
    """In the server's own words, in OpenAI's shape; servers have several shapes of their own:
    {"error": {"message"}}, {"error": "..."}, {"message": "..."}, {"detail": "..." or a list}."""
    body = body or {}
    error = body.get("error")
    said: Mapping[str, object] = error if isinstance(error, dict) else body
    words = [said.get("message"), error, body.get("detail")]
    message = next((word for word in words if isinstance(word, str) and word), None)
    if message is None and body.get("detail"):
        message = orjson.dumps(body["detail"]).decode()
    param, code = said.get("param"), said.get("code")
    return ApiError(
        status,
        (message or f"The server refused the request ({status}).")[:_MAX_MESSAGE_CHARS],
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) else None,
    )


def refused(model: ModelConfig, status: int) -> ApiError:
    """Nothing of what it said: it may show parts of this service's own key."""
    return ApiError(
        502,
        f"The server of {model.name!r} answered {status}, and not as OpenAI's API does; check its "
        "base_url and its key here.",
    )


def unreachable(model: ModelConfig, error: Exception) -> ApiError:
    if isinstance(error, OverloadedError):
        return api_error(error)
    return ApiError(
        502, f"The server of {model.name!r} did not answer properly ({type(error).__name__})."
    )
