"""What spot machines that come and go will make of a run: hours and dollars under each policy.

    python -m apps.train simulate --preset vicuna-7b --trace spot-traces --deadline-h 24
    python -m apps.train simulate --preset vicuna-13b --policy least-cost --generator.up-h 2

Takes every setting of `plan`, whose hours, checkpoints, restarts and prices are replayed over
availability traces (one folder a market, one JSON file a zone), or over a made-up market. Writes
simulation.json and config.yaml to `--save`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial

from apps.common.command.events import Reporter
from apps.common.command.result import show_and_save
from apps.common.errors import ConfigError, InputError
from apps.common.spot import trace
from apps.common.spot.generator import GeneratorConfig, generate
from apps.common.spot.trace import Market
from apps.train import plan as plans
from apps.train.planning.settings import PlanConfig
from apps.train.spot import learnt, study, text
from apps.train.spot.planned import job_of, prices_of
from apps.train.spot.result import Simulation

SIMULATION_NAME = "simulation.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulateConfig(PlanConfig):
    """Every setting of `plan`, and the market to replay it on: without a trace, a made-up one."""

    policy: str = ""
    """one of wait, any-zone, greedy, uniform-progress-2024 (as published), uniform-progress (its
    line fitted to the first half of the trace), least-cost; default: all of them"""
    deadline_h: float | None = None
    """hours from the start by which the run must have ended; without it, on demand is not used"""
    alone: bool = False
    """every zone is a market of its own, as if the job could not move"""
    starts: int = 24
    """runs a market, begun at times that are spread evenly over it"""
    each: bool = False
    """show every market, not only all of them together"""
    on_demand_price: str = "on-demand"
    """column of the price table for machines that stay, or US dollars per GPU and hour; --price is
    the one for spot"""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)


def run_simulate(config: SimulateConfig, reporter: Reporter) -> None:
    """Print the table; with `save`, write it as JSON, the settings beside it."""
    simulation = simulate(config)
    shown = text.lines(simulation, each=config.each)
    show_and_save(simulation, SIMULATION_NAME, shown, config, reporter)


def simulate(config: SimulateConfig) -> Simulation:
    """Every policy over every market; ConfigError or InputError says what cannot be."""
    names = _names(config.policy)
    if config.starts < 1:
        raise ConfigError(f"starts is {config.starts}; expected 1 or more.")
    if config.trace and config.generator != GeneratorConfig():
        raise ConfigError(
            "--generator makes up a market and --trace has one; leave one of them out."
        )
    plan = plans.make_plan(replace(config, trace=()))  # replayed below, not for its waiting
    if not plan.memory.fits:
        raise ConfigError(
            f"{plan.model} does not fit {plan.machines.num_gpus} x {plan.machines.accelerator}; "
            "`python -m apps.train plan` says what makes it fit."
        )
    prices, _ = prices_of(plan, config.on_demand_price, config.prices)
    deadline_s = None if config.deadline_h is None else config.deadline_h * 3600
    job = job_of(plan.training, plan.checkpoints, plan.preemptions, deadline_s)
    markets = _markets(config, plan.training.network.num_machines)
    runs = [(market, study.run(job, market, names, prices, config.starts)) for market in markets]
    held = [one for _, one in runs if one is not None]
    if not held:
        room_h = (job.deadline_s or study.ROOM * job.work_s) / 3600
        raise InputError(
            f"No trace holds a run of {room_h:.1f} h in each of its halves; give longer traces, or "
            "more GPUs."
        )
    return Simulation(
        machines=config.gpus,
        work_h=job.work_s / 3600,
        restart_s=job.restart_s,
        checkpoint_s=job.checkpoint_s,
        deadline_h=config.deadline_h,
        spot_usd_per_hour=prices.spot_usd,
        on_demand_usd_per_hour=prices.on_demand_usd,
        on_demand_usd=prices.on_demand_usd * (job.work_s + job.restart_s) / 3600,
        markets=tuple(study.simulated(job, one, prices) for one in held),
        together=study.together(job, held, prices),
        too_short=tuple(market.name for market, one in runs if one is None),
    )


def _names(policy: str) -> tuple[str, ...]:
    if policy and policy not in learnt.NAMES:
        raise ConfigError(f"policy is {policy!r}; expected one of {', '.join(learnt.NAMES)}.")
    return (policy,) if policy else learnt.NAMES


def _markets(config: SimulateConfig, num_machines: int) -> list[Market]:
    if config.trace:
        markets = trace.read(config.trace, num_machines)
    else:
        markets = [generate(config.generator)]
    return [zone for market in markets for zone in market.alone()] if config.alone else markets


def presets() -> dict[str, Callable[[], SimulateConfig]]:
    """Those of `plan`."""
    return {name: partial(_preset, made) for name, made in plans.presets().items()}


def _preset(made: Callable[[], PlanConfig]) -> SimulateConfig:
    plan = made()
    return SimulateConfig(**{field.name: getattr(plan, field.name) for field in fields(plan)})
