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
from apps.serve.engine.config import PoolConfig, RemoteConfig, TorchConfig, VllmConfig
from apps.serve.page.config import PageConfig

EngineConfig = TorchConfig | VllmConfig | RemoteConfig | PoolConfig
MODEL_APPLICATION = "model-"
"""what the names of the models' Serve applications begin with"""
_KINDS = {"torch": TorchConfig, "vllm": VllmConfig, "remote": RemoteConfig, "pool": PoolConfig}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,95}")
_KEY_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_SAMPLING_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, 1_000_000),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
}
_OF_REPLICAS = ("template", "break_role_marks", "replicas", "autoscaling", "resources", "sampling")
"""what a server elsewhere is not told"""
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::\d+)?")
"""as browsers write it, https://www.rfc-editor.org/rfc/rfc6454#section-6.2"""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIMITS_URL = re.compile(r"(?:redis|valkey)(?:s|\+unix|\+sentinel|\+cluster)?://\S+")
"""schemes of the `limits` package"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one replica reserves on its Ray node."""

    cpus: float = 1.0
    """logical CPUs"""
    gpus: float = 0.0
    memory_bytes: int | None = None
    custom: dict[str, float] = field(default_factory=dict)
    """Ray custom resources, such as {"accelerator_type:H200": 0.001}"""
    market: Literal["any", "stable", "spot"] = "any"
    """machines it may stand on; Ray on a spot machine is started with RAY_NODE_MARKET_TYPE=spot"""

    def __post_init__(self) -> None:
        amounts = {"cpus": self.cpus, "gpus": self.gpus, "memory_bytes": self.memory_bytes or 0}
        for name, amount in (amounts | self.custom).items():
            if not 0 <= amount < math.inf:
                raise ConfigError(f"resources ask for {name} {amount}; it must be >= 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Autoscaling:
    """How the number of replicas follows what is asked of them; the greater of two counts holds."""

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 24.0
    """requests per replica that the autoscaler aims at"""
    target_load: float = 0.8
    """share of a replica's places or of its KV cache's tokens, running and waiting, to aim at"""
    upscale_delay_s: float = 2.0
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
        configs.above_zero(self, "autoscaling.", "target_ongoing_requests", "target_load")


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
    break_role_marks: bool = False
    """what users type as a text by which the template says who speaks, such as `USER:`, is broken;
    a request may say otherwise, and the page always asks for it"""
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
        if not self.is_local:
            self._check_has_no_replicas()
        if "path" in self.options:
            raise ConfigError(f"Model {self.name!r}: path stands beside name, not in options.")
        self.engine_config(self.path)

    def _check_has_no_replicas(self) -> None:
        """Raises ConfigError for settings that nobody would read."""
        usual = ModelConfig(name="usual", path="usual")
        for name in _OF_REPLICAS:
            if getattr(self, name) != getattr(usual, name):
                raise ConfigError(
                    f"Model {self.name!r}: {name} is for models with replicas of their own, and "
                    f"an engine {self.engine!r} has none; leave it out."
                )

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
        return MODEL_APPLICATION + re.sub(r"[^A-Za-z0-9]+", "-", self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """A key that clients may use; only its digest is kept. A limit that is None does not hold."""

    name: str
    """who it belongs to; appears in logs and metrics"""
    sha256: str
    """hex digest: printf %s "$KEY" | sha256sum"""
    models: tuple[str, ...] = ()
    """names or aliases of the models it may use; empty: all"""
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

    def holds_at(self, now_s: float) -> bool:
        """Whether it is taken, at a Unix time."""
        return self.expires is None or now_s < self.expires


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
        if not self.host.strip():
            raise ConfigError(
                "gateway.host is empty, which would be every address of the machine; to mean that, "
                "write 0.0.0.0."
            )
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port is {self.port}; expected 0 to 65535.")
        if self.replicas is not None and self.replicas < 1:
            raise ConfigError(f"gateway.replicas is {self.replicas}; expected >= 1.")
        if not 1024 <= self.max_body_bytes <= 64 << 20:
            raise ConfigError(
                f"max_body_bytes is {self.max_body_bytes}; expected 1024 to {64 << 20}."
            )
        for origin in self.cors_origins:
            if origin == "null":
                raise ConfigError(
                    'cors_origins has "null", which browsers say for local files and for sandboxed '
                    'frames of any site: it would let everybody in; write "*" to mean that.'
                )
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"cors_origins has {origin!r}, which no browser says; expected a scheme and a "
                    'host in small letters, such as https://example.org, or "*".'
                )
        if not self.body_timeout_s > 0:
            raise ConfigError(f"body_timeout_s is {self.body_timeout_s}; it must be above 0.")
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ConfigError(f"trusted_proxies has {network!r}: {error}.") from error
        if self.limits_url and not _LIMITS_URL.fullmatch(self.limits_url):
            raise ConfigError(
                "limits_url is no Redis; expected redis://HOST:PORT, or leave it out."
            )
        if not self.silence_timeout_s >= 2:
            raise ConfigError(
                f"silence_timeout_s is {self.silence_timeout_s}; expected >= 2, because a replica "
                "says once a second that it is there."
            )

    @property
    def url_here(self) -> str:
        """As other processes of the machine reach it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_open(self) -> bool:
        """Everybody may call."""
        return not self.api_keys and not self.keys_file


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
        by_name = {model.name: model for model in self.models}
        for model in self.models:
            _check_pool(model, by_name)
        for name in self.page.battle_weights:
            if name not in by_name:
                raise ConfigError(
                    f"page.battle_weights names {name!r}, which is no model here; expected one of "
                    f"{', '.join(by_name)}."
                )
        if self.page_needs_key and not self.page.api_key_env:
            raise ConfigError(
                "The gateway asks for keys, so the page needs a key too: set page.api_key_env to "
                "an environment variable that holds one, or page.enabled to false."
            )

    @property
    def page_needs_key(self) -> bool:
        return self.page.enabled and not self.gateway.is_open


def _check_pool(pool: ModelConfig, models: Mapping[str, ModelConfig]) -> None:
    config = pool.engine_config(pool.path)
    if not isinstance(config, PoolConfig):
        return
    if pool.prices != Prices():
        raise ConfigError(f"The pool {pool.name!r} has prices; give them to its members.")
    for member in config.members:
        if member.model not in models or models[member.model].engine == "pool":
            able = [name for name, other in models.items() if other.engine != "pool"]
            expected = f"expected one of {', '.join(able)}" if able else "add a model that answers"
            raise ConfigError(
                f"The pool {pool.name!r} has the member {member.model!r}; {expected}."
            )


def _unique(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{what} {twice[0]!r} occurs more than once; names must differ.")
