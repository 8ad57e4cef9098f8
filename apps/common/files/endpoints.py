"""Endpoints that are called elsewhere (judges, contestants, remote models), in one YAML file.

gpt:
  base_url: https://api.openai.com/v1
  model: gpt-4o-2024-08-06        # by default the name above
  style: openai                   # openai, azure or anthropic; by default the URL tells
  key_env: OPENAI_API_KEY         # variable that holds the key, never the key itself
  headers: {X-Team: eval}         # sent with every request
  drop: [temperature]             # parameters that the endpoint refuses
  rename: {max_tokens: max_completion_tokens}
  limits: {requests_per_min: 500, tokens_per_min: 200000, concurrency: 32}
  prices: {usd_per_million_prompt_tokens: 2.5, usd_per_million_completion_tokens: 10}
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import parse_qs, urlsplit

from apps.common.errors import ConfigError
from apps.common.files import config as configs

# RFC 9110 5.1 and 5.5: what a header's name is made of, and what its value cannot hold.
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_HEADER = re.compile(r"[^\x20-\x7e\t\x80-\xff]")
_NO_KEY = re.compile(r"[^\x21\x23-\x7e]")
Style = Literal["openai", "azure", "anthropic"]
_SENT = ("max_tokens", "temperature", "top_p", "seed", "response_format")
_NO_PARAMETERS = ("model", "messages", "stream")


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointLimits:
    """What an account allows; None leaves it to the command's own settings."""

    requests_per_min: float | None = None
    """Requests a minute."""
    tokens_per_min: float | None = None
    """Prompt and completion tokens a minute."""
    concurrency: int | None = None
    """Requests in flight."""

    def __post_init__(self) -> None:
        configs.above_zero(self, "limits.", "requests_per_min", "tokens_per_min", "concurrency")


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointPrices:
    """List prices, US dollars per million tokens."""

    usd_per_million_prompt_tokens: float
    """US dollars."""
    usd_per_million_completion_tokens: float
    """US dollars."""

    def __post_init__(self) -> None:
        names = ("usd_per_million_prompt_tokens", "usd_per_million_completion_tokens")
        configs.at_least(0, self, "prices.", *names)


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointSettings:
    """One named endpoint."""

    base_url: str
    """Address up to /v1, or Azure's deployment with its api-version."""
    model: str | None = None
    """Model's name at the endpoint; by default the endpoint's name in the file."""
    style: Style | None = None
    """Whose API it speaks; by default the URL tells Azure's and Anthropic's from OpenAI's."""
    key_env: str | None = None
    """Environment variable with the key; without it no key is sent."""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """Sent with every request."""
    drop: tuple[str, ...] = ()
    """Parameters never sent."""
    rename: dict[str, str] = field(default_factory=dict[str, str])
    """Parameters under the endpoint's own names."""
    limits: EndpointLimits = field(default_factory=EndpointLimits)
    """What the account allows."""
    prices: EndpointPrices | None = None
    """What its tokens cost; by default the list of known models is asked."""

    def __post_init__(self) -> None:
        check_url(self.base_url, "base_url")
        if self.key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.key_env):
            raise ConfigError(
                "key_env is no name of an environment variable; expected one such as "
                "OPENAI_API_KEY, and the key itself in that variable"
            )
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or _NO_HEADER.search(value):
                raise ConfigError(
                    f"headers holds {name!r}, whose name or value no HTTP header can have; "
                    "expected one line of text, such as X-Team: eval"
                )
        if any(name.lower() == "authorization" for name in self.headers):
            check_one_credential(self.base_url, "base_url")
        if "max_tokens" in self.drop:
            raise ConfigError(
                "drop holds max_tokens, which bounds what an answer costs; rename it instead, as "
                "in rename: {max_tokens: max_completion_tokens}"
            )
        self._check_renamed()

    def _check_renamed(self) -> None:
        """Every parameter has a name of its own: one that loses it would be sent no more."""
        sent = [self.rename.get(name, name) for name in _SENT if name not in self.drop]
        for name, new in self.rename.items():
            if not re.fullmatch(r"\w+", new) or new in _NO_PARAMETERS or sent.count(new) > 1:
                raise ConfigError(
                    f"rename gives {name} the name {new!r}, which is another parameter's or none; "
                    "expected the endpoint's own, as in rename: {max_tokens: max_completion_tokens}"
                )


def load_endpoints(uri: str) -> dict[str, EndpointSettings]:
    """The endpoints of a file by name. Raises ConfigError naming the key that is wrong."""
    endpoints: dict[str, EndpointSettings] = {}
    for name, values in configs.load_yaml(uri).items():
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{uri}: endpoint {name!r} is {values!r}; expected a mapping with base_url"
            )
        try:
            settings = cast(Mapping[str, object], values)
            endpoints[str(name)] = configs.from_dict(EndpointSettings, settings, where=f"{name}.")
        except ConfigError as error:
            raise ConfigError(f"{uri}: endpoint {name!r}: {error.sentence}") from None
    if not endpoints:
        raise ConfigError(
            f"{uri} names no endpoint; expected a name with its settings, such as gpt: {{base_url: "
            "http://host:port/v1}"
        )
    return endpoints


def check_url(url: str, what: str) -> None:
    """Refuses what is no http address of a host."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets without an IPv6 address, or a port that is none
        is_one = False
    if not is_one or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ConfigError(f"{what} {url!r} has no http URL; expected http://host:port/v1")


def check_one_credential(url: str, what: str) -> None:
    """Refuses a name and password in a URL to which a key is sent as well."""
    if "@" in urlsplit(url).netloc:
        raise ConfigError(
            f"{what} has a name or password before the host, and a key goes there too; give one of "
            "both"
        )


def read_key(variable: str | None) -> str | None:
    """The key in an environment variable; None without one. Raises ConfigError, never naming it.

    A line's end that came along from a file is no part of it.
    """
    return whole_key(os.environ.get(variable, ""), variable) if variable else None


def whole_key(text: str, source: str) -> str | None:
    """A key as it was read, without the blanks around it; None where nothing else is there."""
    key = text.strip()
    if _NO_KEY.search(key):
        raise ConfigError(
            f"{source} holds blanks, line ends, quotation marks or letters that no key has; "
            "export the key alone, one word of ASCII letters, digits and signs"
        )
    return key or None


def style_of(url: str) -> Style:
    """The API that a URL tells by itself; OpenAI's where nothing speaks against it.

    `https://x.openai.azure.com/openai/deployments/d?api-version=2024-06-01` is Azure's,
    `https://api.anthropic.com/v1` Anthropic's.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if (
        "api-version" in parse_qs(parts.query)
        or "/openai/deployments/" in parts.path
        or host.endswith(".openai.azure.com")
    ):
        return "azure"
    return "anthropic" if host == "api.anthropic.com" else "openai"
