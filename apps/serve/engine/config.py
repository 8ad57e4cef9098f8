"""Settings of each engine."""

import math
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from apps.common.errors import ConfigError

_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchConfig:
    """Our own continuous batching for LLaMA-family folders."""

    path: str
    """Local model folder in Hugging Face layout."""
    device: str = "cpu"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the weights; auto: bfloat16 on a GPU, on a CPU where the folder's are it, else float32.

    A CPU with AMX or AVX512_BF16 multiplies bfloat16 weights by inputs in bfloat16; others compute
    what float32 would.
    """
    num_threads: int = 1
    """CPU threads of one forward pass."""
    max_running: int = 32
    """Most requests in one batch; each holds a slot of the KV cache."""
    max_waiting: int = 512
    """Most requests in the queue; more are refused as overload."""
    context_tokens: int | None = None
    """Longest prompt plus answer; None: what the model was trained for."""
    kv_tokens: int | None = None
    """KV-cache budget over all slots; None: max_running contexts, or 2 GB, or one context."""
    prefill_chunk_tokens: int = 256
    """Most prompt tokens in one step, so that long prompts do not stall running answers."""
    prefix_cache: bool = True
    hang_timeout_s: float = 120.0
    """A step that takes longer makes the engine unhealthy."""

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(f"device is {self.device!r}; it must be cpu, cuda or cuda:N")
        _check_between(self, 1, 1024, "num_threads", "max_running")
        _check_between(self, 1, 1 << 20, "max_waiting")
        _check_between(self, 1, 1 << 16, "prefill_chunk_tokens")
        _check_between(self, 1, math.inf, "context_tokens", "kv_tokens")
        _check_between(self, 0.001, math.inf, "hang_timeout_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class VllmConfig:
    """A vLLM server: started on loopback by the engine, or an address where one already runs."""

    path: str = ""
    """Model folder or hub id given to the server; its end tokens are read from the folder."""
    base_url: str = ""
    """Use this server (such as http://127.0.0.1:8001) instead of starting one."""
    python: str = ""
    """Interpreter of the environment that has vLLM; empty: this one."""
    tensor_parallel_size: int = 1
    quantization: str = ""
    lora: str = ""
    """Folder or hub id of a LoRA adapter that every answer uses."""
    context_tokens: int | None = None
    max_running: int = 256
    max_waiting: int = 1024
    server_args: tuple[str, ...] = ()
    """Passed to the server unchanged."""
    start_timeout_s: float = 900.0

    def __post_init__(self) -> None:
        if not (self.path or self.base_url):
            raise ConfigError("give path (starts a vLLM server) or base_url (uses a running one)")
        if self.base_url:
            _check_url(self.base_url)
        _check_between(self, 1, 1 << 20, "max_running", "max_waiting", "tensor_parallel_size")
        _check_between(self, 1, math.inf, "context_tokens", "start_timeout_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteConfig:
    """Any OpenAI-compatible server elsewhere. It takes text, so requests are forwarded."""

    base_url: str
    """Up to and including /v1."""
    model: str
    """The name that server knows."""
    api_key_env: str = ""
    """Environment variable that holds the key."""
    api_key_file: str = ""
    """File that holds the key."""
    health_url: str = ""
    """Answers 200 while the server is well; a pool asks it four times a second. Empty: nothing is
    asked, and a server that fails is left alone for a while."""
    continues: bool = False
    """It goes on with an answer that has begun: it takes `continue_final_message`, as vLLM, SGLang
    and this gateway do."""
    timeout_s: float = 600.0
    max_running: int = 256

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if self.health_url:
            _check_url(self.health_url, "health_url")
        _check_between(self, 1, 1 << 20, "max_running")
        _check_between(self, 0.001, math.inf, "timeout_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolMember:
    """A back end of a pool."""

    model: str
    """Another model of the file; its own prices and limits hold."""
    weight: float = 1.0
    """Its share of the requests, beside the others' weights."""
    last_resort: bool = False
    """Asked only when no other member can be."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"weight of {self.model!r} is {self.weight}; it must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """One name over several back ends."""

    members: tuple[PoolMember, ...] = ()
    joinable: bool = False
    """Workers elsewhere may join it, with a key that has the pool's name in `may_join`."""

    def __post_init__(self) -> None:
        names = [member.model for member in self.members]
        if len(set(names)) < len(names):
            raise ConfigError(f"members are {', '.join(names)}; each model may stand there once")
        if not self.members and not self.joinable:
            raise ConfigError("members is empty; list models, or set joinable to true")


def _check_between(settings: object, least: float, most: float, *names: str) -> None:
    """None stands for a default and is not checked."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            span = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:,}"
            raise ConfigError(f"{name} is {value}; it must be {span}")


def _check_url(url: str, name: str = "base_url") -> None:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{name} is {url!r}; it must begin with http:// or https://")
    try:
        parts = urlsplit(url)
        is_one = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or any(char.isspace() for char in url):
        raise ConfigError(f"{name} is {url!r}, which names no host and port that there can be")
