"""Which model runs on which GPUs: the serve YAML for a trace of requests and an SLO.

    python -m apps.serve place models.yaml --gpus 16xA100-80GB --trace azure.csv > serve.yaml
    python -m apps.serve place models.yaml --gpus 8xH100 --slo ttft=1s,tpot=50ms --explain
    python -m apps.serve place models.yaml --gpus 2xCPU --speeds measured.yaml
    python -m apps.serve place models.yaml --watch http://127.0.0.1:8000 --serving serve.yaml \
        --out proposed.yaml

models.yaml lists what is to be placed; `speed` is a row of apps/serve/place/speeds.yaml, or of
--speeds; `share` is the model's part of the requests, by default a power law in the file's order:

models:
  - {name: vicuna-7b, path: lmsys/vicuna-7b-v1.5, speed: llama-7b, share: 3}
  - {name: vicuna-13b, path: lmsys/vicuna-13b-v1.5, speed: llama-13b, share: 1}
"""

import dataclasses
import itertools
import math
import re
import sys
import time
from dataclasses import dataclass, field
from typing import Literal

import yaml
from tyro.conf import Positional

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, CriaError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.files.config import above_zero, at_least
from apps.common.files.endpoints import read_key
from apps.serve.config import ServeConfig
from apps.serve.place import arrivals, in_use, live, output
from apps.serve.place.arrivals import Arrivals
from apps.serve.place.explanation import explanation, left_out
from apps.serve.place.placement import Cluster, Model, Placement, num_replicas
from apps.serve.place.search import Found, Problem, search
from apps.serve.place.simulator import Slo
from apps.serve.place.speed import shape

CPU = "CPU"
MEMORY_GB = {"A100-40GB": 40, "A100-80GB": 80, "H100": 80, "H200": 141, CPU: 4}
SAMPLE_REQUESTS = 2500
"""What the search looks at first, the busiest; the result is chosen by the whole trace."""
_GPUS = re.compile(r"(\d+)x(\S+)")
_SLO = re.compile(r"ttft=(\d+(?:\.\d+)?)(ms|s),tpot=(\d+(?:\.\d+)?)(ms|s)")
_OF_WATCH = ("serving", "every_minutes", "looks", "gain", "key_env")
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
    """number and kind: A100-40GB, A100-80GB, H100 or H200; 8xCPU: eight cores with 4 GB each, for
    our own engine, whose speed --speeds has"""
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
    """of search, at most; a simulation that has begun is ended"""
    spot: bool = False
    """some machines may be taken away: each model has a replica on others, and the YAML says which
    replicas stand where; a model on both is a pool of two"""
    explain: bool = False
    """say why, as comments above the YAML"""
    out: str = ""
    """file to write; by default the YAML is printed"""
    watch: str = ""
    """address of a running gateway: take what it is asked for the traffic, look again and again,
    and write --out where another placement keeps more requests within the SLO"""
    serving: str = ""
    """the YAML that the gateway serves now; copying what is proposed over it applies that"""
    every_minutes: float = 10.0
    """between two looks"""
    looks: int = 0
    """how many of them; 0: until it is stopped"""
    gain: float = 0.02
    """least share of the requests, within the SLO besides, that is worth a change"""
    key_env: str = ""
    """environment variable with an admin's key of the gateway, where keys are set"""

    def __post_init__(self) -> None:
        above_zero(self, "", "times", "seconds", "every_minutes")
        at_least(0, self, "", "looks", "gain")
        self._check_read()
        if self.watch and not (self.serving and self.out and self.serving != self.out):
            raise ConfigError(
                "--watch needs --serving FILE, the YAML that is served, and --out FILE, another "
                "one for what is proposed."
            )

    def _check_read(self) -> None:
        """Raises ConfigError for what nobody would read."""
        defaults = {one.name: one.default for one in dataclasses.fields(self)}
        unread = ("trace",) if self.watch else _OF_WATCH
        for name in unread:
            if getattr(self, name) != defaults[name]:
                how = "without" if self.watch else "with"
                raise ConfigError(f"{configs.flag(name)} is read {how} --watch only; leave it out.")


def place(config: PlaceConfig, reporter: Reporter) -> None:
    """Print or write the YAML, once or whenever the traffic has shifted."""
    if config.watch:
        watch(config, reporter)
        return
    found, whole = find(config)
    text = yaml_of(config, found, whole)
    if not config.out:
        sys.stdout.write(text)
        return
    storage.write_atomic(config.out, text.encode())
    share = within(whole, found.best)
    reporter.event("place.done", out=config.out, within_slo=share, optimal=found.is_optimal)


def yaml_of(
    config: PlaceConfig, found: Found, whole: Problem, served: in_use.Served | None = None
) -> str:
    """Of the placement alone, or of what is `served` with the placement in it."""
    is_cpus = whole.cluster.is_cpus
    placed = output.service(found.best, whole.models, spot=config.spot, is_cpus=is_cpus)
    content = in_use.replaced(served, _names(whole), placed["models"]) if served else placed
    configs.from_dict(ServeConfig, content)  # what cannot be served is refused here
    told: list[str] = []
    if config.explain:
        cut = ", cut short by --seconds" if found.is_greedy_cut else ""
        contenders = {"even replicas": found.even, f"greedy (AlpaServe){cut}": found.greedy}
        told += explanation(whole, contenders, found.best, is_optimal=found.is_optimal)
    told += left_out(whole, found.best)
    lines = [f"# {line}" for line in told]
    return "\n".join([*lines, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)])


def _names(problem: Problem) -> list[str]:
    return [model.name for model in problem.models]


def within(problem: Problem, groups: Placement) -> float:
    """Share of the requests that keep the SLO."""
    return problem.score(groups).attained / problem.arrivals.num_requests


def watch(config: PlaceConfig, reporter: Reporter) -> None:
    """Propose; a person applies it, over the file that `apps.serve run` follows."""
    entries = configs.load(ModelsFile, config.file).models
    _served(config, entries)  # while somebody looks
    key = read_key(config.key_env) or ""
    if config.key_env and not key:
        raise ConfigError(
            f"--key-env names {config.key_env}, which is not set; put an admin's key of the "
            "gateway there."
        )
    before, since_s = live.read(config.watch, key), time.monotonic()
    for _ in range(config.looks) if config.looks else itertools.count():
        time.sleep(config.every_minutes * 60)
        try:
            after = live.read(config.watch, key)
            now_s = time.monotonic()
            grown, over_s = live.between(before, after), now_s - since_s
            before, since_s = after, now_s
            asked = [grown.get(entry.name, live.Asked()) for entry in entries]
            requests = sum(one.requests for one in asked)
            if requests < live.FEWEST_REQUESTS:
                reporter.event("place.quiet", requests=requests)
            else:
                _propose(config, entries, asked, over_s, reporter)
        except CriaError as error:  # the gateway is away, or somebody edits the file
            reporter.line(f"{error.sentence} The next look is in {config.every_minutes:g} min.")


def _propose(
    config: PlaceConfig,
    entries: tuple[ModelToPlace, ...],
    asked: list[live.Asked],
    over_s: float,
    reporter: Reporter,
) -> None:
    traffic = live.like(
        asked, over_s, seconds=config.traffic.minutes * 60, cv=config.traffic.cv,
        seed=config.traffic.seed,
    )  # fmt: skip
    served, now = _served(config, entries)
    stand = frozenset(index for group in now for index in group.models)
    found, whole = _search(config, entries, traffic.faster(config.times), stand)
    share_now = within(whole, now) if now else 0.0
    share = within(whole, found.best)
    told = {"within_slo_now": share_now, "within_slo": share}
    if share < share_now + config.gain:
        reporter.event("place.kept", **told)
        return
    storage.write_atomic(config.out, yaml_of(config, found, whole, served).encode())
    replicas = {
        model.name: f"{num_replicas(now, index)} -> {num_replicas(found.best, index)}"
        for index, model in enumerate(whole.models)
    }
    reporter.event("place.proposed", out=config.out, replicas=replicas, **told)


def _served(
    config: PlaceConfig, entries: tuple[ModelToPlace, ...]
) -> tuple[in_use.Served, Placement]:
    """What --serving holds, as it was written and as it places these models, if a placement can be
    written into it."""
    written = configs.load_yaml(config.serving)
    served = configs.from_dict(ServeConfig, written)
    names = [entry.name for entry in entries]
    in_use.check(served, names, is_cpus=_gpus(config.gpus)[1] == CPU)
    return written, in_use.in_use(served, names)


def find(config: PlaceConfig) -> tuple[Found, Problem]:
    """The placement, and the problem with every request."""
    entries = configs.load(ModelsFile, config.file).models
    return _search(config, entries, _requests(config, entries))


def _search(
    config: PlaceConfig,
    entries: tuple[ModelToPlace, ...],
    requests: Arrivals,
    must_hold: frozenset[int] = frozenset(),
) -> tuple[Found, Problem]:
    num_gpus, accelerator = _gpus(config.gpus)
    models = [
        Model(name=e.name, path=e.path, shape=shape(e.speed, accelerator, config.speeds))
        for e in entries
    ]
    cluster = Cluster(
        num_gpus=num_gpus,
        memory_bytes=MEMORY_GB[accelerator] * 1e9,
        is_cpus=accelerator == CPU,
    )
    slo = read_slo(config.slo)
    sample, whole = (
        Problem(models=models, cluster=cluster, arrivals=some, slo=slo, must_hold=must_hold)
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
    if not math.isfinite(config.exponent):
        raise ConfigError(
            f"--exponent is {config.exponent}; expected a number, 0 for equal shares."
        )
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
    slo = Slo(
        ttft_s=float(match[1]) * _UNIT_S[match[2]], tpot_s=float(match[3]) * _UNIT_S[match[4]]
    )
    if not (slo.ttft_s > 0 and slo.tpot_s > 0):
        raise ConfigError(f"--slo is {text!r}; expected times above 0.")
    return slo
