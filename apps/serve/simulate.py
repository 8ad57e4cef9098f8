"""What a service on spot machines will cost and how often it will be short, under each policy.

    python -m apps.serve simulate --trace spot-traces --replicas 4
    python -m apps.serve simulate --policy steady --availability 0.999 --generator.up-h 2

Replays availability traces (one folder a market, one JSON file a zone), or a made-up market. Each
machine is one replica. Writes simulation.json to `--save`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

from apps.common.command.events import Reporter
from apps.common.command.result import show_and_save
from apps.common.errors import ConfigError
from apps.common.spot import trace
from apps.common.spot.generator import GeneratorConfig, generate
from apps.common.spot.trace import Market
from apps.serve.spot.policies import POLICIES
from apps.serve.spot.replay import Outcome, Service, replay, together

SIMULATION_NAME = "simulation.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulateConfig(Service):
    """The service, and the markets to replay it on: without a trace, a made-up one."""

    trace: tuple[str, ...] = ()
    """folders of traces, as SkyPilot's spot-traces has them"""
    replicas: int = 4
    """that have to be ready"""
    policy: str = ""
    """one of on-demand, spread, spread+2, skyserve+1, skyserve+2, steady; default: all of them"""
    machines: int | None = None
    """machines behind each one that a trace counts; default: one, or twice the replicas in traces
    that say only whether there are any"""
    save: str | None = None
    """folder for simulation.json"""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)

    def __post_init__(self) -> None:
        Service.__post_init__(self)  # super() does not know a class with slots
        if self.policy and self.policy not in POLICIES:
            raise ConfigError(f"policy is {self.policy!r}; expected one of {', '.join(POLICIES)}.")
        if self.machines is not None and self.machines < 1:
            raise ConfigError(f"machines is {self.machines}; expected 1 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """One market, or all of them together."""

    market: str
    zones: int
    outcomes: dict[str, Outcome]
    """by policy"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceSimulation:
    """simulation.json."""

    service: Service
    markets: tuple[Replayed, ...]
    together: Replayed


def run_simulate(config: SimulateConfig, reporter: Reporter) -> None:
    simulation = simulate(config)
    show_and_save(simulation, SIMULATION_NAME, lines(simulation), config, reporter)


def simulate(config: SimulateConfig) -> ServiceSimulation:
    """Every policy over every market; ConfigError or InputError says what cannot be."""
    service = Service(**{one.name: getattr(config, one.name) for one in fields(Service)})
    names = (config.policy,) if config.policy else tuple(POLICIES)
    markets = trace.read(config.trace, 1) if config.trace else [generate(config.generator)]
    replayed = tuple(_replayed(_with_machines(one, config), service, names) for one in markets)
    both = {name: together([one.outcomes[name] for one in replayed]) for name in names}
    zones = sum(one.zones for one in replayed)
    return ServiceSimulation(
        service=service,
        markets=replayed,
        together=Replayed(market="all, by their hours", zones=zones, outcomes=both),
    )


def _with_machines(market: Market, config: SimulateConfig) -> Market:
    behind = config.machines or (2 * config.replicas if market.counts.max() <= 1 else 1)
    return replace(market, counts=market.counts * behind)


def _replayed(market: Market, service: Service, names: Sequence[str]) -> Replayed:
    return Replayed(
        market=market.name,
        zones=len(market.zones),
        outcomes={
            name: replay(service, market, POLICIES[name](market.zones, service)) for name in names
        },
    )


_HEAD = (
    f"{'policy':<13}{'ready':>8}{'capacity':>10}{'cost':>7}{'on demand':>11}{'taken':>7}"
    f"{'longest short':>15}"
)


def lines(simulation: ServiceSimulation) -> Iterator[str]:
    """A table a market, and one of all together."""
    service = simulation.service
    yield (
        f"{service.replicas} replicas, ready {service.cold_start_s:.0f} s after a start, spot at "
        f"{service.spot_price:.0%} of on demand, no notice before a machine is taken"
    )
    shown = (*simulation.markets, simulation.together)
    for one in shown if len(simulation.markets) > 1 else simulation.markets:
        hours = next(iter(one.outcomes.values())).hours
        yield ""
        yield f"{one.market}: {one.zones} zones, {hours:.0f} h"
        yield _HEAD
        yield from (_row(name, outcome) for name, outcome in one.outcomes.items())
    yield ""
    yield "ready: share of the time with all replicas ready. capacity: mean share that is ready."
    yield "cost: over that of as many machines on demand. on demand: share of the machine-hours."


def _row(name: str, outcome: Outcome) -> str:
    return (
        f"{name:<13}{outcome.availability:>8.2%}{outcome.capacity:>10.2%}{outcome.cost:>7.1%}"
        f"{outcome.on_demand_share:>11.0%}{outcome.losses:>7}{outcome.longest_short_s:>13.0f} s"
    )
