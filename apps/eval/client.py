"""One request to an OpenAI-compatible endpoint, and what its failure means.

Retries, pacing and money are decided by the caller; the openai client's own retries are off, or
calls would be sent that nobody wrote down.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any, Literal

from apps.common.errors import CriaError, InputError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FailureKind = Literal["rate_limited", "unavailable", "timeout", "rejected", "fatal"]
# Reasoning models take max_completion_tokens and no temperature.
_REASONING_FAMILIES = ("o1", "o3", "o4", "gpt-5")


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where a model answers. Made on the driver, because workers may lack its environment."""

    model: str
    base_url: str | None
    """None is OpenAI's own"""
    api_key: str = field(repr=False)
    timeout_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    endpoint_model: str
    fingerprint: str | None


class CallFailure(Exception):
    """A request without a usable response, and what to do about it."""

    def __init__(
        self,
        kind: FailureKind,
        sentence: str,
        may_be_billed: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence
        self.may_be_billed = may_be_billed
        self.retry_after_s = retry_after_s


class EndpointRefusedError(CriaError):
    """The endpoint rejects the key, the quota or the model: no call can succeed."""


def openai_endpoint(model: str, timeout_s: float) -> Endpoint:
    """OpenAI, or what OPENAI_BASE_URL names, with OPENAI_API_KEY."""
    key, base_url = os.environ.get("OPENAI_API_KEY"), os.environ.get("OPENAI_BASE_URL")
    if not key and not base_url:
        raise InputError(
            f"{model} needs an API key and OPENAI_API_KEY is not set; export it, or set "
            "OPENAI_BASE_URL to an endpoint without keys"
        )
    return Endpoint(model=model, base_url=base_url, api_key=key or "none", timeout_s=timeout_s)


def connect(endpoint: Endpoint) -> "AsyncOpenAI":
    """A client for many concurrent calls; close it when done."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(
        api_key=endpoint.api_key,
        base_url=endpoint.base_url,
        max_retries=0,
        timeout=endpoint.timeout_s,
    )


async def complete(
    client: "AsyncOpenAI",
    model: str,
    messages: Sequence[dict[str, str]],
    parameters: dict[str, Any],
) -> Reply:
    """Sends one chat completion; raises CallFailure."""
    import openai

    try:
        completion = await client.chat.completions.create(
            model=model, messages=list(messages), **fitted(model, parameters)
        )
        return _reply(completion)
    except openai.APIStatusError as error:
        raise _status_failure(error) from None
    except openai.APITimeoutError:
        raise CallFailure("timeout", "no response in time", may_be_billed=True) from None
    except openai.APIConnectionError as error:
        # The connection may have broken after the request was served.
        broke_late = "connect" not in type(error.__cause__).__name__.lower()
        cause = error.__cause__ or error
        raise CallFailure("unavailable", f"connection failed: {cause}", broke_late) from None
    except (openai.APIError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise CallFailure("unavailable", f"not a chat completion: {error}", True) from None


def _reply(completion: Any) -> Reply:
    """Raises TypeError or the like for a body that is JSON but no completion."""
    choice = completion.choices[0]
    text = choice.message.content or choice.message.refusal or ""
    usage = completion.usage
    return Reply(
        text=str(text),
        finish_reason="content_filter"
        if choice.message.refusal
        else str(choice.finish_reason or "stop"),
        prompt_tokens=int(usage.prompt_tokens) if usage else 0,
        completion_tokens=int(usage.completion_tokens) if usage else 0,
        endpoint_model=str(completion.model),
        fingerprint=completion.system_fingerprint,
    )


def as_reply(body: dict[str, Any]) -> Reply:
    """The reply in a chat completion's JSON body, as batches return it."""
    from openai.types.chat import ChatCompletion

    return _reply(ChatCompletion.model_validate(body))


def fitted(model: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters under the names that the model's family takes."""
    kept = {name: value for name, value in parameters.items() if value is not None}
    if model.startswith(_REASONING_FAMILIES):
        kept["max_completion_tokens"] = kept.pop("max_tokens")
        kept.pop("temperature", None)
        kept.pop("top_p", None)
    return kept


def _status_failure(error: Any) -> CallFailure:
    status, sentence = error.status_code, f"HTTP {error.status_code}: {_brief(error)}"
    if status == 429 and error.code != "insufficient_quota":
        wait_s = retry_after_s(error.response.headers)
        return CallFailure("rate_limited", sentence, retry_after_s=wait_s)
    if status in (401, 403, 404) or status == 429:
        return CallFailure("fatal", sentence)
    if status in (408, 409) or status >= 500:
        wait_s = retry_after_s(error.response.headers)
        return CallFailure("unavailable", sentence, status == 504, retry_after_s=wait_s)
    return CallFailure("rejected", sentence)


def _brief(error: Any) -> str:
    return " ".join(str(error.message).split())[:300]


def retry_after_s(headers: Any) -> float | None:
    """Seconds of `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 10.2.3)."""
    if (millis := headers.get("retry-after-ms")) and millis.replace(".", "", 1).isdigit():
        return float(millis) / 1000.0
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return None
