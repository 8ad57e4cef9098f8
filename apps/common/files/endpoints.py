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

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import parse_qs, urlsplit

from apps.common.errors import ConfigError
from apps.common.files import config as configs

Style = Literal["openai", "azure", "anthropic"]


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
        if "max_tokens" in self.drop:
            raise ConfigError(
                "drop holds max_tokens, which bounds what an answer costs; rename it instead, as "
                "in rename: {max_tokens: max_completion_tokens}"
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
    return endpoints


def check_url(url: str, what: str) -> None:
    """Refuses what is no http address of a host."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{what} {url!r} has no http URL; expected http://host:port/v1")


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
