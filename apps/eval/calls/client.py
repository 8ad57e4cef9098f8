"""One request to an OpenAI-compatible endpoint, and what its failure means.

Retries, pacing and money are decided by the caller: a client that retried by itself would send
calls that nobody wrote down.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any, Literal, cast

import orjson

from apps.common.errors import CriaError, InputError

if TYPE_CHECKING:
    import aiohttp

FailureKind = Literal["rate_limited", "unavailable", "timeout", "rejected", "fatal"]
# Codes with which OpenAI says that the account, not the request, is at fault.
_ACCOUNT_CODES = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
)
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


class Client:
    """Many concurrent chat completions to one endpoint, as `async with connect(endpoint)`.

    Plain aiohttp: the openai package takes 1.4 s of CPU to import and some milliseconds a call to
    validate, which 64 responses that arrive together all wait for.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        base_url = endpoint.base_url or "https://api.openai.com/v1"
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Client":
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._endpoint.api_key}"},
            timeout=aiohttp.ClientTimeout(total=self._endpoint.timeout_s),
            connector=aiohttp.TCPConnector(limit=0),
            trust_env=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(self, body: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """(status, headers, body) of the response; raises CallFailure without one."""
        import aiohttp

        assert self._session is not None
        try:
            data, header = orjson.dumps(body), {"Content-Type": "application/json"}
            async with self._session.post(self._url, data=data, headers=header) as response:
                return response.status, response.headers, await response.read()
        except TimeoutError:
            raise CallFailure("timeout", "no response in time", may_be_billed=True) from None
        except aiohttp.ClientError as error:
            # The connection may have broken after the request was served.
            broke_late = not isinstance(error, aiohttp.ClientConnectorError)
            raise CallFailure("unavailable", f"connection failed: {error}", broke_late) from None


def connect(endpoint: Endpoint) -> Client:
    return Client(endpoint)


async def complete(
    client: Client,
    model: str,
    messages: Sequence[dict[str, str]],
    parameters: dict[str, Any],
) -> Reply:
    """Sends one chat completion; raises CallFailure."""
    request = {"model": model, "messages": list(messages), **fitted(model, parameters)}
    status, headers, body = await client.post(request)
    if status >= 400:
        raise _status_failure(status, headers, body)
    try:
        return as_reply(orjson.loads(body))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise CallFailure("unavailable", f"not a chat completion: {error}", True) from None


def as_reply(body: dict[str, Any]) -> Reply:
    """The reply in a chat completion's JSON; raises TypeError or the like for anything else."""
    choice = body["choices"][0]
    refusal = choice["message"].get("refusal")
    usage: dict[str, Any] = body.get("usage") or {}
    return Reply(
        text=str(choice["message"].get("content") or refusal or ""),
        finish_reason="content_filter" if refusal else str(choice.get("finish_reason") or "stop"),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        endpoint_model=str(body.get("model")),
        fingerprint=body.get("system_fingerprint"),
    )


def fitted(model: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters under the names that the model's family takes."""
    kept = {name: value for name, value in parameters.items() if value is not None}
    if model.startswith(_REASONING_FAMILIES):
        kept["max_completion_tokens"] = kept.pop("max_tokens")
        kept.pop("temperature", None)
        kept.pop("top_p", None)
    return kept


def _status_failure(status: int, headers: Mapping[str, str], body: bytes) -> CallFailure:
    message, code = _told(body)
    sentence = f"HTTP {status}: {message}"
    if status in (401, 402, 403, 404) or code in _ACCOUNT_CODES:
        return CallFailure("fatal", sentence)
    if status == 429:
        return CallFailure("rate_limited", sentence, retry_after_s=retry_after_s(headers))
    if status in (408, 409) or status >= 500:
        wait_s = retry_after_s(headers)
        return CallFailure("unavailable", sentence, status == 504, retry_after_s=wait_s)
    return CallFailure("rejected", sentence)


def _told(body: bytes) -> tuple[str, str | None]:
    """The message and the code of an error's body, whatever its form."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return " ".join(body.decode(errors="replace").split())[:300], None
    error = cast(dict[str, Any], said).get("error", said) if isinstance(said, dict) else said
    if not isinstance(error, dict):
        return " ".join(str(error).split())[:300], None
    fields = cast(dict[str, Any], error)
    return " ".join(str(fields.get("message", fields)).split())[:300], fields.get("code")


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
