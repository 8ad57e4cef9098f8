"""One request to an endpoint, and what its failure means.

Retries, pacing and money are decided by the caller: a client that retried by itself would send
calls that nobody wrote down. Only a parameter that the endpoint refuses is mended here, because
such a refusal costs nothing.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import orjson

from apps.common.errors import ConfigError
from apps.common.files.endpoints import EndpointLimits, EndpointPrices, Style
from apps.eval.calls import styles
from apps.eval.calls.failure import (
    UNFIT,
    WRITTEN_CODES,
    CallFailure,
    failure_of,
    is_filtered,
)
from apps.eval.calls.json_body import broke_off, excerpt, load, stated_status, told
from apps.eval.calls.lines import Message, Parameters
from apps.eval.calls.parameters import ParameterFit
from apps.eval.calls.reply import Reply

if TYPE_CHECKING:
    import aiohttp

MOST_BYTES = 32 << 20
"""of a response's body; what is longer is neither an answer nor a judgment"""
Response = tuple[int, Mapping[str, str], bytes]
"""status, headers, body; the status is the body's own where it holds an error under a success"""


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


class Client:
    """Many concurrent chat completions to one endpoint, as `async with connect(endpoint)`.

    Plain aiohttp: the openai package takes 1.4 s of CPU to import and some milliseconds a call to
    validate, which 64 responses that arrive together all wait for.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.fit = ParameterFit(endpoint.model, endpoint.drop, endpoint.rename)
        self._url = styles.url(endpoint.style, endpoint.base_url, endpoint.model)
        self._proxy = _proxy_for(self._url)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Client":
        import aiohttp

        endpoint = self.endpoint
        own = {name.lower() for name in endpoint.headers}
        usual = styles.headers(endpoint.style, endpoint.api_key)
        self._session = aiohttp.ClientSession(
            headers={
                **{name: value for name, value in usual.items() if name.lower() not in own},
                **endpoint.headers,
            },
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s),
            connector=aiohttp.TCPConnector(limit=0),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(self, body: dict[str, object]) -> Response:
        """The response, from this URL and no other; raises CallFailure without one."""
        import aiohttp

        assert self._session is not None
        try:
            async with self._session.post(
                self._url,
                data=orjson.dumps(body),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                data = await _read(response)
                return stated_status(response.status, data), response.headers, data
        except TimeoutError:
            raise CallFailure("timeout", "no response in time", may_be_billed=True) from None
        except aiohttp.ClientError as error:
            # The connection may have broken after the request was served.
            broke_late = not isinstance(error, aiohttp.ClientConnectorError)
            why = " ".join(str(error).split())
            raise CallFailure("unavailable", f"connection failed: {why}", broke_late) from None


async def _read(response: "aiohttp.ClientResponse") -> bytes:
    """The body, as far as memory allows; raises CallFailure for more."""
    data = bytearray()
    async for some in response.content.iter_any():
        data += some
        if len(data) > MOST_BYTES:
            sentence = f"HTTP {response.status} with more than {MOST_BYTES >> 20} MiB"
            raise CallFailure("garbled", sentence, may_be_billed=True)
    return _as_utf8(bytes(data), response.charset)


def _as_utf8(data: bytes, charset: str | None) -> bytes:
    """JSON is UTF-8, whatever its header says; what is not is read as the header says."""
    try:
        data.decode()
        return data
    except UnicodeDecodeError:
        with contextlib.suppress(LookupError, UnicodeDecodeError):
            return data.decode(charset or "").encode()
        return data


def _proxy_for(url: str) -> str | None:
    """What HTTP_PROXY, HTTPS_PROXY and NO_PROXY say; raises ConfigError for a proxy of no use.

    aiohttp reads them too (`trust_env`), but takes a password out of ~/.netrc along with them,
    which goes to the endpoint in place of the key, or fails beside it.
    """
    scheme, host, *_ = urlsplit(url)
    proxy = None if proxy_bypass(host.rpartition("@")[2]) else getproxies().get(scheme)
    if not proxy:
        return None
    if "://" not in proxy:
        return f"http://{proxy}"
    if (kind := urlsplit(proxy).scheme.lower()) not in ("http", "https"):
        raise ConfigError(
            f"{scheme.upper()}_PROXY names a proxy of {kind}, which is not supported; expected "
            "http://host:port, or the endpoint's host in NO_PROXY"
        )
    return proxy


def connect(endpoint: Endpoint) -> Client:
    return Client(endpoint)


async def complete(client: Client, messages: Sequence[Message], parameters: Parameters) -> Reply:
    """Sends one chat completion; raises CallFailure."""
    endpoint = client.endpoint
    while True:
        sent = client.fit.fitted(parameters)
        body = styles.body(endpoint.style, endpoint.model, messages, sent)
        status, headers, data = await client.post(body)
        if status not in UNFIT:
            return read_response(endpoint.style, status, headers, data)
        message, code = told(data)
        if is_filtered(status, message, code):
            return read_response(endpoint.style, status, headers, data)
        if not client.fit.learn(message, code, sent):
            return await _without_form(client, messages, sent, (status, headers, data))


async def _without_form(
    client: Client, messages: Sequence[Message], sent: Parameters, refusal: Response
) -> Reply:
    """The reply to the request without its form, which is what was refused if that is taken."""
    style, bare = client.endpoint.style, client.fit.without_form(sent)
    if bare is not None and told(refusal[2])[1] in WRITTEN_CODES:
        client.fit.drop_form()  # the reply was written and billed: the next try does without
        bare = None
    if bare is None:
        return read_response(style, *refusal)
    body = styles.body(style, client.endpoint.model, messages, bare)
    status, headers, data = await client.post(body)
    if status not in UNFIT:
        client.fit.drop_form()
    return read_response(style, status, headers, data)


def read_response(style: Style, status: int, headers: Mapping[str, str], data: bytes) -> Reply:
    """The reply in a response; raises CallFailure where it holds none."""
    if status >= 300:
        message, code = told(data)
        if is_filtered(status, message, code):
            return Reply(text=message, finish_reason="content_filter", was_filtered=True)
        raise failure_of(status, headers, message, code)
    try:
        said = load(data)
        if why := broke_off(said):
            sentence = f"the endpoint broke off its answer ({why})"
            raise CallFailure("garbled", sentence, may_be_billed=True)
        return styles.reply(style, said)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        sentence = f"HTTP {status} without a chat completion ({why}): {excerpt(data)}"
        raise CallFailure("garbled", sentence, may_be_billed=True) from None
