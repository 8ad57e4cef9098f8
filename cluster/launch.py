"""Keeps a training run going on spot machines, moving between zones and on demand by a deadline.

    python -m apps.train plan --preset vicuna-7b --gpus 8xA100-80GB --save plan
    python -m cluster.launch --plan plan --zones gcp/us-central1/us-central1-a aws/us-east-1 \
        --out s3://bucket/runs/vicuna --deadline-h 24 --env BUCKET=s3://bucket BASE=hub/id

Runs on your own machine and submits SkyPilot managed jobs, one after another, each bound to one
zone and market. Where to go next is decided by the policies that `apps.train simulate` replays.
The run has the plan's settings, but for its base, data and OUT, which are the task's.
Writes OUT/cost.json, and OUT/launch.json: the same command, started again, takes up the same job.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from apps.common.command import cli
from apps.common.command.events import Reporter
from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.common.files import costs, storage
from apps.common.files.lock import alone_in
from apps.common.spot import trace
from apps.common.spot.trace import Market
from apps.train.config import LoraConfig, RunConfig
from apps.train.plan import PLAN_NAME
from apps.train.planning.result import Plan
from apps.train.planning.settings import PlanConfig
from apps.train.spot import study
from apps.train.spot.chain import guess
from apps.train.spot.job import Job, Prices
from apps.train.spot.learnt import LEAST_COST, NAMES, made
from apps.train.spot.least_cost import least_cost, plan_tick_s
from apps.train.spot.planned import job_of, prices_of
from apps.train.spot.policy import POLICIES, Policy
from cluster import sky_jobs
from cluster.controller import Controller, Spent, follow
from cluster.sky_cloud import Held, SkyCloud

STATE_NAME = "launch.json"
TASK = Path(__file__).with_name("train.yaml")
_SETTINGS = "SETTINGS"
"""the task's variable for settings of the run"""
_STARTS = 24
"""over the trace that a policy is fitted to, as `apps.train simulate` has by default"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchConfig:
    """What to launch, where it may run, and until when."""

    plan: str
    """folder of `apps.train plan --save`; the run has its settings, all but base, data and out"""
    zones: tuple[str, ...]
    """cloud/region/zone, best first"""
    out: str
    """the run's folder; its last part is RUN"""
    task: Path = TASK
    """SkyPilot's task file; it runs on the plan's GPUs, whatever it names itself"""
    env: tuple[str, ...] = ()
    """NAME=VALUE for the task"""
    secret: tuple[str, ...] = ()
    """names of variables here whose values the task is given, such as HF_TOKEN"""
    policy: str = LEAST_COST
    """as in `apps.train simulate`"""
    trace: str = ""
    """folder of one availability trace, as in `apps.train simulate`, which uniform-progress and
    least-cost learn from; without it least-cost begins with a guess"""
    deadline_h: float | None = None
    """hours from the start; without it, on demand is not used"""
    tick_minutes: float = 5.0
    """between two looks at the job"""
    retry_minutes: float = 15.0
    """a zone without machines is asked again after so long"""
    start_minutes: float = 15.0
    """a start in a zone that takes longer counts as a zone without machines"""
    on_demand_price: str = "on-demand"
    """as in `apps.train simulate`; spot costs what the plan was priced with"""
    prices: str | None = None
    """price table to use in place of the one in the repository (YAML)"""

    def __post_init__(self) -> None:
        configs.above_zero(self, "", "tick_minutes", "retry_minutes", "start_minutes")
        if not self.zones:
            raise ConfigError("--zones is empty; expected cloud/region/zone, one or more.")
        envs = sky_jobs.envs_of(self.env)
        for name in ("PRESET", _SETTINGS) if self.task == TASK else (_SETTINGS,):
            if name in envs:
                raise ConfigError(
                    f"--env {name} is not read where the plan has the run's settings; leave it "
                    "out, and give them to `python -m apps.train plan`."
                )
        bucket = envs.get("BUCKET", "").rstrip("/")
        written = f"{bucket}/runs/{self.run_name}"
        if self.task == TASK and bucket and self.out.rstrip("/") != written:
            raise ConfigError(
                f"--out is {self.out}, and with BUCKET={bucket} the run is written to {written}, "
                "where nobody would look for its steps; make them the same."
            )

    @property
    def run_name(self) -> str:
        """RUN of the task."""
        return self.out.rstrip("/").rsplit("/", 1)[-1]


@dataclass(kw_only=True, slots=True)
class LaunchState:
    """OUT/launch.json: what was spent and where the job is."""

    spent: Spent
    held: Held


def run_launch(
    config: LaunchConfig,
    reporter: Reporter,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> None:
    """Until the run has ended; what is wrong with the settings is said before the first machine."""
    with alone_in(storage.join(config.out, STATE_NAME)):  # a job on this machine is alone in OUT
        _run_launch(config, reporter, sleep, clock)


def _run_launch(
    config: LaunchConfig,
    reporter: Reporter,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    plan = configs.read_json(Plan, storage.join(config.plan, PLAN_NAME))
    if plan is None:
        raise ConfigError(
            f"--plan {config.plan} has no {PLAN_NAME}; `python -m apps.train plan ... --save "
            f"{config.plan}` writes it."
        )
    deadline_s = None if config.deadline_h is None else config.deadline_h * 3600
    job = job_of(plan.training, plan.checkpoints, plan.preemptions, deadline_s)
    prices, dated = prices_of(plan, config.on_demand_price, config.prices)
    history = history_of(config.trace, plan.training.network.num_machines)
    policy = policy_of(config.policy, job, prices, config.tick_minutes * 60, history)
    sky_jobs.check_installed()
    state = read_state(config.out) or LaunchState(spent=Spent(seen_s=clock()), held=Held())
    cloud = sky_cloud(config, plan, job, state)
    cloud.check()  # a restart without the secrets must not cancel the job
    if _SETTINGS not in sky_jobs.declared_envs(config.task):
        reporter.line(f"{config.task} has no {_SETTINGS} under envs: its run has its own settings.")
    cloud.sleep, cloud.clock = sleep, clock
    controller = Controller(
        job=job,
        policy=policy,
        cloud=cloud,
        home=config.zones[0],
        tick_s=config.tick_minutes * 60,
        spent=state.spent,
    )
    kind = f"{plan.machines.num_gpus}x{plan.machines.accelerator}"

    def save() -> None:
        write_state(config.out, state)
        costs.write(config.out, controller.cost(kind, prices, dated))

    follow(controller, reporter, save, sleep, clock)


def settings_of(plan: str) -> str:
    """Those of a plan that a run has too, as YAML in one line."""
    planned = configs.load(PlanConfig, storage.join(plan, configs.RESOLVED_NAME))
    if planned.adapter != "lora":  # a plan may propose one; a run is refused for it
        planned = replace(planned, lora=LoraConfig())
    names = {field.name for field in fields(RunConfig)} - {"base", "data", "out"}
    values = configs.to_dict(planned)
    return json.dumps({name: value for name, value in values.items() if name in names})


def sky_cloud(config: LaunchConfig, plan: Plan, job: Job, state: LaunchState) -> SkyCloud:
    """Of this launch, going on where `state` is."""
    machines = plan.machines
    num_nodes = plan.training.network.num_machines
    rented = None  # a plan for CPUs names no machines that a cloud has: the task's own
    if machines.accelerator != "CPU":
        rented = sky_jobs.machines_of(machines.num_gpus, machines.accelerator, num_nodes)
    return SkyCloud(
        task=config.task,
        name=config.run_name,
        out=config.out,
        work_s=job.work_s,
        zones=config.zones,
        envs={**sky_jobs.envs_of(config.env), _SETTINGS: settings_of(config.plan)},
        secrets=config.secret,
        machines=rented,
        retry_s=config.retry_minutes * 60,
        start_s=config.start_minutes * 60,
        held=state.held,
        save=lambda: write_state(config.out, state),
    )


def write_state(out: str, state: LaunchState) -> None:
    """Whole, or as it was before."""
    configs.write_json(state, storage.join(out, STATE_NAME))


def read_state(out: str) -> LaunchState | None:
    """None: nothing was launched into this folder."""
    return configs.read_json(LaunchState, storage.join(out, STATE_NAME))


def history_of(folder: str, num_machines: int) -> Market | None:
    """What is known of how machines come and go; None where no trace is given."""
    if not folder:
        return None
    markets = trace.read([folder], num_machines)
    if len(markets) > 1:
        raise ConfigError(
            f"--trace {folder} holds {len(markets)} collections ({markets[0].name}, "
            f"{markets[1].name}, ...); give the folder of one."
        )
    return markets[0]


def policy_of(
    name: str, job: Job, prices: Prices, tick_s: float, history: Market | None = None
) -> Policy:
    """By name; where nothing is known of the zones before, `least-cost` begins with its guess."""
    if name not in NAMES:
        raise ConfigError(f"--policy is {name!r}; expected one of {', '.join(NAMES)}.")
    if name in POLICIES:
        return POLICIES[name]
    if history is None and name == LEAST_COST:
        return least_cost(job, guess(plan_tick_s(job, tick_s)), prices)
    if history is None:
        raise ConfigError(f"--policy {name} fits its line to a trace; give --trace FOLDER.")
    starts = study.starts(job, history, _STARTS)
    if not starts:
        raise ConfigError(
            f"The trace is {history.hours:.0f} h long, too short for one run; give a longer one."
        )
    return made(name, job, history, prices, starts)


COMMAND = cli.Command(
    config=LaunchConfig,
    run=run_launch,
    help="Keeps a training run going on spot machines, by a deadline.",
    example="--plan plan --zones aws/us-east-1 gcp/us-central1 --out s3://bucket/runs/vicuna "
    "--deadline-h 24 --env BUCKET=s3://bucket BASE=hub/id",
)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_single("cluster.launch", COMMAND, argv)


if __name__ == "__main__":
    sys.exit(main())
