"""Which model runs on which GPUs: the serve YAML for a trace of requests and an SLO.

    python -m apps.serve place models.yaml --gpus 16xA100-80GB --trace azure.csv > serve.yaml
    python -m apps.serve place models.yaml --gpus 8xH100 --slo ttft=1s,tpot=50ms --explain

models.yaml lists what is to be placed; `speed` is a row of apps/serve/place/speeds.yaml, or of
--speeds; `share` is the model's part of the requests, by default a power law in the file's order:

models:
  - {name: vicuna-7b, path: lmsys/vicuna-7b-v1.5, speed: llama-7b, share: 3}
  - {name: vicuna-13b, path: lmsys/vicuna-13b-v1.5, speed: llama-13b, share: 1}
"""

import re
import sys
from dataclasses import dataclass, field
from typing import Literal

import yaml
from tyro.conf import Positional

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.files.config import above_zero
from apps.serve.config import ServeConfig
from apps.serve.place import arrivals, output
from apps.serve.place.arrivals import Arrivals
from apps.serve.place.placement import Cluster, Model
from apps.serve.place.search import Found, Problem, search
from apps.serve.place.simulator import Slo
from apps.serve.place.speed import shape

MEMORY_GB = {"A100-40GB": 40, "A100-80GB": 80, "H100": 80, "H200": 141}
SAMPLE_REQUESTS = 2500
"""What the search looks at first, the busiest; the result is chosen by the whole trace."""
_GPUS = re.compile(r"(\d+)x(\S+)")
_SLO = re.compile(r"ttft=([\d.]+)(ms|s),tpot=([\d.]+)(ms|s)")
_UNIT_S = {"s": 1.0, "ms": 1e-3}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelToPlace:
    """One entry of models.yaml."""

    name: str
    path: str
    speed: str
    share: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelsFile:
    """models.yaml."""

    models: tuple[ModelToPlace, ...]

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("models is empty; list at least one model to place.")
        shared = [model for model in self.models if model.share is not None]
        if shared and len(shared) < len(self.models):
            raise ConfigError("Some models have a share and some have none; give all, or none.")
        for model in shared:
            above_zero(model, f"{model.name}.", "share")


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeTraffic:
    """Where no trace is given."""

    kind: Literal["gamma", "bursty"] = "bursty"
    """gamma: gaps with a coefficient of variation; bursty: as BurstGPT describes ChatGPT's use"""
    rate_per_s: float = 5.0
    """requests a second"""
    cv: float = 2.0
    """of gamma's gaps; 1 is Poisson"""
    minutes: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        above_zero(self, "traffic.", "rate_per_s", "cv", "minutes")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceConfig:
    """Which model runs on which GPUs."""

    file: Positional[str]
    """YAML file with the models to place"""
    gpus: str = "8xA100-80GB"
    """number and kind: A100-40GB, A100-80GB, H100 or H200"""
    trace: str = ""
    """CSV of requests, as Azure's: TIMESTAMP,ContextTokens,GeneratedTokens"""
    traffic: MadeTraffic = field(default_factory=MadeTraffic)
    times: float = 1.0
    """requests come so many times as fast as in the trace"""
    exponent: float = 1.0
    """of the power law by which models are asked, where models.yaml has no shares"""
    slo: str = "ttft=2s,tpot=80ms"
    """time to the first token, and between two"""
    speeds: str = ""
    """table to use in place of the one in the repository (YAML)"""
    seconds: float = 30.0
    """of local search, at most"""
    explain: bool = False
    """say why, as comments above the YAML"""
    out: str = ""
    """file to write; by default the YAML is printed"""

    def __post_init__(self) -> None:
        above_zero(self, "", "times", "seconds")


def place(config: PlaceConfig, reporter: Reporter) -> None:
    """Print or write the YAML."""
    found, whole = find(config)
    content = output.service(found.best, whole.models)
    configs.from_dict(ServeConfig, content)  # what cannot be served is refused here
    lines: list[str] = []
    if config.explain:
        contenders = {"even replicas": found.even, "greedy (AlpaServe)": found.greedy}
        told = output.explanation(whole, contenders, found.best, is_optimal=found.is_optimal)
        lines = [f"# {line}" for line in told]
    text = "\n".join([*lines, yaml.safe_dump(content, sort_keys=False)])
    if not config.out:
        sys.stdout.write(text)
        return
    storage.write_atomic(config.out, text.encode())
    share = whole.score(found.best).attained / whole.arrivals.num_requests
    reporter.event("place.done", out=config.out, within_slo=share, optimal=found.is_optimal)


def find(config: PlaceConfig) -> tuple[Found, Problem]:
    """The placement, and the problem with every request."""
    entries = configs.load(ModelsFile, config.file).models
    num_gpus, accelerator = _gpus(config.gpus)
    models = [
        Model(name=e.name, path=e.path, shape=shape(e.speed, accelerator, config.speeds))
        for e in entries
    ]
    cluster = Cluster(num_gpus=num_gpus, memory_bytes=MEMORY_GB[accelerator] * 1e9)
    requests = _requests(config, entries)
    slo = read_slo(config.slo)
    sample, whole = (
        Problem(models=models, cluster=cluster, arrivals=some, slo=slo)
        for some in (requests.busiest(SAMPLE_REQUESTS), requests)
    )
    found = search(sample, whole, config.seconds)
    if not found.best:
        raise ConfigError(
            f"No model of {config.file} fits --gpus {config.gpus}; give more or larger GPUs."
        )
    return found, whole


def _requests(config: PlaceConfig, entries: tuple[ModelToPlace, ...]) -> Arrivals:
    made = config.traffic
    if config.trace:
        requests = arrivals.read_azure(config.trace)
    elif made.kind == "gamma":
        requests = arrivals.gamma(made.rate_per_s, made.minutes * 60, made.seed, made.cv)
    else:
        requests = arrivals.bursty(made.rate_per_s, made.minutes * 60, made.seed)
    if requests.num_requests < 2:
        raise ConfigError("The traffic has fewer than two requests; give more minutes, or a trace.")
    shares = [entry.share for entry in entries if entry.share is not None]
    by_law = arrivals.power_law(len(entries), config.exponent)
    return arrivals.split(requests, shares or by_law).faster(config.times)


def _gpus(text: str) -> tuple[int, str]:
    match = _GPUS.fullmatch(text)
    if match is None or match[2] not in MEMORY_GB or int(match[1]) < 1:
        kinds = ", ".join(MEMORY_GB)
        raise ConfigError(f"--gpus is {text!r}; expected a number and one of {kinds}: 8xA100-80GB.")
    return int(match[1]), match[2]


def read_slo(text: str) -> Slo:
    match = _SLO.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ConfigError(f"--slo is {text!r}; expected for example ttft=2s,tpot=80ms.")
    return Slo(
        ttft_s=float(match[1]) * _UNIT_S[match[2]], tpot_s=float(match[3]) * _UNIT_S[match[4]]
    )
