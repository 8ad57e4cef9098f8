"""What is served: one YAML file, checked completely before anything starts.

models:
  - name: vicuna                 # the name clients ask for
    path: runs/vicuna/model      # folder, s3://, gs:// or hub id
    engine: torch                # torch | vllm | remote
    options: {num_threads: 2}    # settings of that engine
    resources: {cpus: 2}
    autoscaling: {min_replicas: 1, max_replicas: 4}
gateway: {port: 8000}
page: {title: Vicuna}
"""

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.common.files.endpoints import EndpointSettings
from apps.serve.engine.config import PoolConfig, RemoteConfig, TorchConfig, VllmConfig

EngineConfig = TorchConfig | VllmConfig | RemoteConfig | PoolConfig
_KINDS = {"torch": TorchConfig, "vllm": VllmConfig, "remote": RemoteConfig, "pool": PoolConfig}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,95}")
_KEY_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d+)?")
_SAMPLING_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, 1_000_000),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one replica reserves on its Ray node."""

    cpus: float = 1.0
    """logical CPUs"""
    gpus: float = 0.0
    memory_bytes: int | None = None
    custom: dict[str, float] = field(default_factory=dict)
    """Ray custom resources, such as {"accelerator_type:H200": 0.001}"""

    def __post_init__(self) -> None:
        amounts = {"cpus": self.cpus, "gpus": self.gpus, "memory_bytes": self.memory_bytes or 0}
        for name, amount in (amounts | self.custom).items():
            if not 0 <= amount < math.inf:
                raise ConfigError(f"resources ask for {name} {amount}; it must be >= 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Autoscaling:
    """How the number of replicas follows the number of requests."""

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 24.0
    """requests per replica that the autoscaler aims at"""
    upscale_delay_s: float = 10.0
    downscale_delay_s: float = 300.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise ConfigError(
                f"autoscaling has min_replicas {self.min_replicas} and max_replicas "
                f"{self.max_replicas}; expected 0 <= min <= max and max >= 1."
            )
        if not (self.upscale_delay_s >= 0 and self.downscale_delay_s >= 0):
            raise ConfigError(
                f"autoscaling has upscale_delay_s {self.upscale_delay_s} and downscale_delay_s "
                f"{self.downscale_delay_s}; both must be >= 0."
            )
        if not self.target_ongoing_requests > 0:
            raise ConfigError(
                f"target_ongoing_requests is {self.target_ongoing_requests}; it must be above 0."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one request may ask of this model."""

    max_output_tokens: int | None = None
    """longest answer; None: what fits into the context"""
    max_choices: int = 16
    """largest n (and best_of) of one request"""
    queue_timeout_s: float = 120.0
    """a request that waits longer for its first token is answered 503"""

    def __post_init__(self) -> None:
        if self.max_output_tokens is not None and self.max_output_tokens < 1:
            raise ConfigError(f"max_output_tokens is {self.max_output_tokens}; expected >= 1.")
        if not 1 <= self.max_choices <= 128:
            raise ConfigError(f"max_choices is {self.max_choices}; expected 1 to 128.")
        if not self.queue_timeout_s > 0:
            raise ConfigError(f"queue_timeout_s is {self.queue_timeout_s}; it must be above 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Shown in /v1/models and counted in /metrics."""

    input_usd_per_million_tokens: float = 0.0
    output_usd_per_million_tokens: float = 0.0

    def __post_init__(self) -> None:
        prices = (self.input_usd_per_million_tokens, self.output_usd_per_million_tokens)
        if not all(0 <= price < math.inf for price in prices):
            raise ConfigError(f"prices are {prices[0]} and {prices[1]}; both must be >= 0.")

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (
            prompt_tokens * self.input_usd_per_million_tokens
            + completion_tokens * self.output_usd_per_million_tokens
        ) / 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How a model draws when a request does not say; None: as its generation_config.json does."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in _SAMPLING_RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"sampling.{name} is {value:g}; expected {least} to {most}.")

    def over(self, stated: Mapping[str, float]) -> dict[str, float]:
        """What holds where the folder has `stated`."""
        given = {name: getattr(self, name) for name in _SAMPLING_RANGES}
        return {**stated, **{name: value for name, value in given.items() if value is not None}}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One model and how it is run."""

    name: str
    """what clients put into `model`"""
    path: str = ""
    """model folder: local, s3://, gs:// or a hub id; empty for a remote engine and a pool"""
    engine: Literal["torch", "vllm", "remote", "pool"] = "torch"
    options: dict[str, Any] = field(default_factory=dict)
    """settings of the engine, see apps/serve/engine/config.py"""
    aliases: tuple[str, ...] = ()
    """further names that clients may use"""
    template: str = ""
    """named chat template; empty: the model folder's own"""
    replicas: int = 1
    """number of replicas when there is no autoscaling"""
    autoscaling: Autoscaling | None = None
    resources: Resources = field(default_factory=Resources)
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"Model name {name!r} is not usable; expected 1-96 letters, digits, "
                    "'.', '_', ':', '/' or '-', beginning with a letter or digit."
                )
        if self.replicas < 1:
            raise ConfigError(f"Model {self.name!r} has {self.replicas} replicas; expected >= 1.")
        if self.is_local != bool(self.path):
            instead = "options.base_url" if self.engine == "remote" else "options.members"
            wants = "a path" if self.is_local else f"no path ({instead})"
            raise ConfigError(f"Model {self.name!r} with engine {self.engine!r} needs {wants}.")
        if self.engine == "remote" and self.sampling != Sampling():
            raise ConfigError(
                f"Model {self.name!r}: a remote server has sampling defaults of its own; leave "
                "`sampling` out."
            )
        if "path" in self.options:
            raise ConfigError(f"Model {self.name!r}: path stands beside name, not in options.")
        self.engine_config(self.path)

    def engine_config(self, folder: str) -> EngineConfig:
        """Settings of the engine for a model that lies in `folder`."""
        settings = {"path": folder, **self.options} if self.is_local else self.options
        try:
            return configs.from_dict(_KINDS[self.engine], settings, where="options.")
        except ConfigError as error:
            raise ConfigError(f"Model {self.name!r}: {error}") from error

    @property
    def is_local(self) -> bool:
        """It has replicas here."""
        return self.engine in ("torch", "vllm")

    @property
    def most_replicas(self) -> int:
        return self.autoscaling.max_replicas if self.autoscaling else self.replicas

    @property
    def application(self) -> str:
        """Name of the model's Serve application."""
        return "model-" + re.sub(r"[^A-Za-z0-9]+", "-", self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """A key that clients may use; only its digest is kept. A limit that is None does not hold."""

    name: str
    """who it belongs to; appears in logs and metrics"""
    sha256: str
    """hex digest: printf %s "$KEY" | sha256sum"""
    models: tuple[str, ...] = ()
    """names of the models it may use; empty: all"""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """of prompts and answers"""
    concurrent_streams: int | None = None
    """answers under way at a time, whole ones too"""
    usd_per_day: float | None = None
    """at the models' prices, per day of UTC"""
    weight: float = 1.0
    """its share of a model that is asked for more than it can give"""
    admin: bool = False
    """may read /metrics"""
    may_join: tuple[str, ...] = ()
    """pools that its holder's workers may join"""
    expires: float | None = None
    """unix time after which it is refused"""

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ConfigError(
                f"The key of {self.name!r} is not a SHA-256 digest; expected 64 lower-case hex "
                'digits, as printed by: printf %s "$KEY" | sha256sum'
            )
        if not _KEY_NAME.fullmatch(self.name):
            raise ConfigError(
                f"The key name {self.name!r} is not usable; expected 1-64 letters, digits, '.', "
                "'_', '@' or '-'."
            )
        for name in ("requests_per_minute", "tokens_per_minute", "concurrent_streams"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} of {self.name!r} is {value}; expected >= 1.")
        if self.usd_per_day is not None and not 0 < self.usd_per_day < math.inf:
            raise ConfigError(f"usd_per_day of {self.name!r} is {self.usd_per_day}; expected > 0.")
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"weight of {self.name!r} is {self.weight}; it must be above 0.")

    @property
    def has_limits(self) -> bool:
        limits = (self.requests_per_minute, self.tokens_per_minute, self.concurrent_streams)
        return self.usd_per_day is not None or any(limit is not None for limit in limits)


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayConfig:
    """The OpenAI API."""

    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 only behind a load balancer"""
    port: int = 8000
    """0 takes a free port"""
    replicas: int | None = None
    """processes of the gateway; None: two where there are two machines or more, otherwise one"""
    api_keys: tuple[ApiKey, ...] = ()
    """keys beside those of keys_file; with neither, everybody may call"""
    keys_file: str = ""
    """file that `python -m apps.serve keys` writes; read again when it changes"""
    limits_url: str = ""
    """redis://HOST:PORT keeps what keys have used over restarts; empty: in memory"""
    cors_origins: tuple[str, ...] = ()
    """web sites whose pages may call, such as https://example.org; "*" for all"""
    trusted_proxies: tuple[str, ...] = ()
    """addresses or networks whose X-Forwarded-For is believed"""
    max_body_bytes: int = 4 << 20
    """largest request body"""
    body_timeout_s: float = 30.0
    """a body that has not come whole by then is answered 408"""
    silence_timeout_s: float = 5.0
    """a replica that says nothing for so long, not even that it is busy, is taken for frozen: its
    requests go on elsewhere, and new ones come to it only when there is no other"""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port is {self.port}; expected 0 to 65535.")
        if self.replicas is not None and self.replicas < 1:
            raise ConfigError(f"gateway.replicas is {self.replicas}; expected >= 1.")
        if not 1024 <= self.max_body_bytes <= 64 << 20:
            raise ConfigError(
                f"max_body_bytes is {self.max_body_bytes}; expected 1024 to {64 << 20}."
            )
        if not self.body_timeout_s > 0:
            raise ConfigError(f"body_timeout_s is {self.body_timeout_s}; it must be above 0.")
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ConfigError(f"trusted_proxies has {network!r}: {error}.") from error
        if not self.silence_timeout_s >= 2:
            raise ConfigError(
                f"silence_timeout_s is {self.silence_timeout_s}; expected >= 2, because a replica "
                "says once a second that it is there."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PageLimits:
    """How much may be asked on the page; 0 anywhere: as much as one likes.

    A battle's question asks for two answers. An address counts with its block: /24, or /48 of IPv6.
    """

    answers_per_minute: int = 20
    """of one visitor"""
    answers_per_hour: int = 240
    """of one visitor"""
    address_answers_per_hour: int = 960
    """of one block of addresses"""
    all_answers_per_hour: int = 0
    """of all visitors together"""
    running_answers: int = 4
    """of one visitor at a time"""
    tokens_per_day: int = 0
    """in the answers to one visitor"""
    votes_per_hour: int = 60
    """of one visitor"""

    def __post_init__(self) -> None:
        configs.at_least(0, self, "page.limits.", *self.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageConfig:
    """The web page."""

    enabled: bool = True
    title: str = "Cria"
    replicas: int = 1
    """processes of the page; any of them serves any visitor"""
    examples: tuple[str, ...] = ()
    """questions offered on an empty page"""
    terms: str = ""
    """what a visitor must agree to before asking, in a few sentences; empty: nothing is asked"""
    api_key_env: str = ""
    """environment variable with the key the page uses when the gateway asks for keys"""
    database_url: str = ""
    """SQLAlchemy URL of conversations and votes; empty: page.db beside this file"""
    origin: str = ""
    """how visitors reach the page, as https://chat.example.org; other hosts are then refused"""
    login_password_env: str = ""
    """environment variable with a password that visitors must know; empty: none"""
    login_header: str = ""
    """header in which a trusted proxy names whom it has logged in, such as X-Auth-Request-User"""
    trusted_proxies: tuple[str, ...] = ()
    """addresses or blocks whose X-Forwarded-For is believed, such as 10.0.0.0/8"""
    frame_ancestors: tuple[str, ...] = ()
    """origins of pages that may show this one in a frame"""
    battle_weights: dict[str, float] = field(default_factory=dict)
    """how often a model is drawn for battles, beside 1 for the others; 0: never"""
    evaluation: str = ""
    """folder of `python -m apps.eval` that visitors may read; empty: none"""
    moderation: Literal["none", "lexicon", "endpoint"] = "none"
    """what reads questions and answers; lexicon: the word list of apps/common"""
    moderation_endpoint: EndpointSettings | None = None
    """OpenAI's moderation API, such as {base_url: http://127.0.0.1:9000/v1, model: guard}"""
    retention_days: int = 0
    """conversations older than this are deleted; 0: none are"""
    max_input_chars: int = 12_000
    max_turns: int = 50
    limits: PageLimits = field(default_factory=PageLimits)

    def __post_init__(self) -> None:
        configs.at_least(1, self, "page.", "replicas", "max_input_chars", "max_turns")
        configs.at_least(0, self, "page.", "retention_days")
        for name, weight in self.battle_weights.items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"page.battle_weights.{name} is {weight}; expected 0 or more.")
        if self.origin and not _ORIGIN.fullmatch(self.origin):
            raise ConfigError(
                f"page.origin is {self.origin!r}; expected a scheme and a host, such as "
                "https://chat.example.org, without a path."
            )
        for origin in self.frame_ancestors:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"page.frame_ancestors has {origin!r}; expected origins such as "
                    "https://lab.example.org."
                )
        if (self.moderation == "endpoint") != (self.moderation_endpoint is not None):
            raise ConfigError(
                "page.moderation: endpoint and page.moderation_endpoint need each other; give "
                "the endpoint's base_url, or neither."
            )
        if self.login_header and not self.trusted_proxies:
            raise ConfigError(
                "page.login_header is believed from page.trusted_proxies only; name the proxy "
                "that logs visitors in."
            )
        for block in self.trusted_proxies:
            try:
                ipaddress.ip_network(block, strict=False)
            except ValueError as error:
                raise ConfigError(
                    f"page.trusted_proxies has {block!r}; expected an address or a block such as "
                    "10.0.0.0/8."
                ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Everything that is served."""

    models: tuple[ModelConfig, ...]
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    page: PageConfig = field(default_factory=PageConfig)

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("models is empty; list at least one model.")
        names = [name for model in self.models for name in (model.name, *model.aliases)]
        _unique("Model name", names)
        _unique("Model name (letters and digits)", [m.application for m in self.models])
        for model in self.models:
            _check_pool(model, {other.name: other for other in self.models})
        asks_for_keys = bool(self.gateway.api_keys or self.gateway.keys_file)
        if asks_for_keys and self.page.enabled and not self.page.api_key_env:
            raise ConfigError(
                "The gateway asks for keys, so the page needs a key too: set page.api_key_env to "
                "an environment variable that holds one, or page.enabled to false."
            )


def _check_pool(pool: ModelConfig, models: Mapping[str, ModelConfig]) -> None:
    config = pool.engine_config(pool.path)
    if not isinstance(config, PoolConfig):
        return
    if pool.prices != Prices():
        raise ConfigError(f"The pool {pool.name!r} has prices; give them to its members.")
    for member in config.members:
        if member.model not in models or models[member.model].engine == "pool":
            able = ", ".join(name for name, other in models.items() if other.engine != "pool")
            raise ConfigError(
                f"The pool {pool.name!r} has the member {member.model!r}; expected one of {able}."
            )


def _unique(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{what} {twice[0]!r} occurs more than once; names must differ.")
