"""One request to an endpoint, and what its failure means.

Retries, pacing and money are decided by the caller: a client that retried by itself would send
calls that nobody wrote down. Only a parameter that the endpoint refuses is mended here, because
such a refusal costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Literal

import orjson

from apps.common.errors import CriaError
from apps.common.files.endpoints import EndpointLimits, EndpointPrices, Style
from apps.common.json_value import JsonValue
from apps.eval.calls import styles
from apps.eval.calls.lines import Message, Parameters
from apps.eval.calls.parameters import ParameterFit
from apps.eval.calls.rate_gate import Outcome
from apps.eval.calls.reply import Reply

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
_FILTER_CODES = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
# The work may have been done, and billed, before these were said; 503 and 529 refuse it unread.
_BILLED_STATUSES = (408, 500, 502, 504)


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where a model answers. Made on the driver, because workers may lack its environment."""

    model: str
    base_url: str | None
    """None is OpenAI's own"""
    api_key: str | None = field(repr=False)
    timeout_s: float
    style: Style = "openai"
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: EndpointLimits = field(default_factory=EndpointLimits)
    prices: EndpointPrices | None = None


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

    @property
    def outcome(self) -> Outcome:
        """For the gate: one that refuses is up, so a pause, as after an outage, helps nobody."""
        if self.kind == "rate_limited":
            return "rate_limited"
        return "error" if self.kind in ("timeout", "unavailable") else "cancelled"


class EndpointRefusedError(CriaError):
    """The endpoint rejects the key, the quota or the model: no call can succeed."""


class Client:
    """Many concurrent chat completions to one endpoint, as `async with connect(endpoint)`.

    Plain aiohttp: the openai package takes 1.4 s of CPU to import and some milliseconds a call to
    validate, which 64 responses that arrive together all wait for.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.fit = ParameterFit(endpoint.model, endpoint.drop, endpoint.rename)
        self._url = styles.url(endpoint.style, endpoint.base_url, endpoint.model)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Client":
        import aiohttp

        endpoint = self.endpoint
        self._session = aiohttp.ClientSession(
            headers={**styles.headers(endpoint.style, endpoint.api_key), **endpoint.headers},
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s),
            connector=aiohttp.TCPConnector(limit=0),
            trust_env=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(self, body: dict[str, object]) -> tuple[int, Mapping[str, str], bytes]:
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


async def complete(client: Client, messages: Sequence[Message], parameters: Parameters) -> Reply:
    """Sends one chat completion; raises CallFailure."""
    endpoint = client.endpoint
    while True:
        sent = client.fit.fitted(parameters)
        body = styles.body(endpoint.style, endpoint.model, messages, sent)
        status, headers, data = await client.post(body)
        if status not in (400, 422) or not client.fit.learn(*told(data), sent):
            return read_response(endpoint.style, status, headers, data)


def read_response(style: Style, status: int, headers: Mapping[str, str], data: bytes) -> Reply:
    """The reply in a response; raises CallFailure where it holds none."""
    if status >= 400:
        message, code = told(data)
        if status in (400, 403) and code in _FILTER_CODES:
            return Reply(text=message, finish_reason="content_filter", was_filtered=True)
        raise _status_failure(status, headers, message, code)
    try:
        return styles.reply(style, orjson.loads(data))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise CallFailure("unavailable", f"not a chat completion: {error}", True) from None


def _status_failure(
    status: int, headers: Mapping[str, str], message: str, code: str | None
) -> CallFailure:
    sentence = f"HTTP {status}: {message}"
    if status in (401, 402, 403, 404) or code in _ACCOUNT_CODES:
        return CallFailure("fatal", sentence)
    if status == 429:
        return CallFailure("rate_limited", sentence, retry_after_s=retry_after_s(headers))
    if status in (408, 409) or status >= 500:
        return CallFailure(
            "unavailable", sentence, status in _BILLED_STATUSES, retry_after_s(headers)
        )
    return CallFailure("rejected", sentence)


def told(data: bytes) -> tuple[str, str | None]:
    """The message and the code of an error's body, whatever its form."""
    try:
        said: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError:
        return " ".join(data.decode(errors="replace").split())[:300], None
    error = said.get("error", said) if isinstance(said, dict) else said
    if not isinstance(error, dict):
        return " ".join(str(error).split())[:300], None
    message = " ".join(str(error.get("message", error)).split())[:300]
    code = error.get("code") or error.get("type")
    return message, str(code) if code else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
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
