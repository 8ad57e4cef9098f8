"""Keeps a training run going on spot machines, moving between zones and on demand by a deadline.

    python -m apps.train plan --preset vicuna-7b --gpus 8xA100-80GB --save plan
    python -m cluster.launch --plan plan --zones gcp/us-central1/us-central1-a aws/us-east-1 \
        --out s3://bucket/runs/vicuna --deadline-h 24 --env BUCKET=s3://bucket --env BASE=hub/id

Runs on your own machine and submits SkyPilot managed jobs, one after another, each bound to one
zone and market. Where to go next is decided by the policies that `apps.train simulate` replays.
Nobody says which zones have machines, so that is learnt: a zone counts as up until a start there
fails or the job is taken, and is asked again `--retry-minutes` later. Writes OUT/cost.json.
"""

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import yaml

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.common.files import costs, storage
from apps.common.files.costs import MachineHours, RunCost, run_cost
from apps.train.checkpoint import checkpoint
from apps.train.loop.record import StepRecord, read_metrics
from apps.train.plan import PLAN_NAME
from apps.train.planning import prices as price_table
from apps.train.planning.result import Plan
from apps.train.spot.chain import guess
from apps.train.spot.job import IDLE, ON_DEMAND, Job, Prices, View
from apps.train.spot.learnt import LEAST_COST
from apps.train.spot.least_cost import least_cost, plan_tick_s
from apps.train.spot.planned import job_of
from apps.train.spot.policy import POLICIES, Policy

TASK = Path(__file__).with_name("train.yaml")


class Cloud(Protocol):
    """What the controller needs of whoever rents machines."""

    def up(self) -> tuple[str, ...]:
        """Zones that have machines, as far as is known; the job's own, while it has it."""
        ...

    def place(self) -> str:
        """Where the job is: IDLE once its machines were taken."""
        ...

    def left_s(self) -> float:
        """Training still to do: what a preemption took back counts again."""
        ...

    def lost_s(self) -> float:
        """Training that preemptions have taken back so far."""
        ...

    def has_ended(self) -> bool:
        """Whether the job has done all, the last checkpoint and the export too."""
        ...

    def move(self, place: str) -> None:
        """Leave the present machines, and take those of `place` unless that is IDLE."""
        ...


@dataclass(kw_only=True, slots=True)
class Controller:
    """One decision a tick; what a simulation decides with a View, this does with a cloud."""

    job: Job
    policy: Policy
    cloud: Cloud
    home: str
    tick_s: float
    elapsed_s: float = 0.0
    up_s: float = 0.0
    paid_s: dict[str, float] = field(default_factory=dict[str, float])
    """By place."""

    def step(self) -> str:
        """Look, decide, move; returns the place until the next step."""
        place, up = self.cloud.place(), self.cloud.up()  # a loss seen now closes its zone
        left_s = self.cloud.left_s()
        self.up_s = self.up_s + self.tick_s if up else 0.0
        view = View(
            elapsed_s=self.elapsed_s,
            left_s=left_s or self.tick_s,  # all steps taken, the export to do
            place=place,
            up=up,
            home=self.home,
            up_s=self.up_s,
            tick_s=self.tick_s,
        )
        is_ending = left_s == 0 and place != IDLE
        chosen = place if is_ending else self.policy(self.job, view)
        if chosen != place:
            self.cloud.move(chosen)
        return chosen

    def passed(self, place: str, seconds: float) -> None:
        """Time since the last step, paid for where the job was."""
        self.elapsed_s += seconds
        if place != IDLE:
            self.paid_s[place] = self.paid_s.get(place, 0.0) + seconds

    @property
    def done(self) -> bool:
        return self.cloud.has_ended()

    def cost(self, kind: str, prices: Prices, dated: str) -> RunCost:
        rows = [_row(kind, place, seconds, prices) for place, seconds in self.paid_s.items()]
        return run_cost(
            rows,
            lost_work_hours=self.cloud.lost_s() / 3600,
            on_demand_usd_per_hour=prices.on_demand_usd,
            prices_dated=dated,
        )


def _row(kind: str, place: str, seconds: float, prices: Prices) -> MachineHours:
    dear = place == ON_DEMAND
    hours, hourly = seconds / 3600, prices.on_demand_usd if dear else prices.spot_usd
    return MachineHours(
        kind=kind,
        region="any" if dear else place,
        market="on-demand" if dear else "spot",
        hours=hours,
        usd=hours * hourly,
    )


def follow(
    controller: Controller,
    reporter: Reporter,
    write_cost: Callable[[], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Step until the run has ended; the cost is written after every tick."""
    place = IDLE
    while not controller.done:
        before_s, before = clock(), place
        place = controller.step()
        if place != before:
            reporter.event("launch.move", place=place, elapsed_h=controller.elapsed_s / 3600)
        sleep(controller.tick_s)
        controller.passed(place, clock() - before_s)
        write_cost()
    controller.cloud.move(IDLE)
    reporter.event("launch.done", hours=controller.elapsed_s / 3600)


def task_config(path: Path, place: str, run: str, envs: Mapping[str, str]) -> dict[str, object]:
    """The task file, bound to one zone and market; SkyPilot must not move it by itself."""
    task = cast(dict[str, object], yaml.safe_load(path.read_text()))
    resources = dict(cast(Mapping[str, object], task["resources"]))
    for key in ("job_recovery", "infra"):
        resources.pop(key, None)
    if place == ON_DEMAND:
        resources["use_spot"] = False
    else:
        resources.pop("any_of", None)
        resources |= {"use_spot": True, "infra": place}
    declared = cast(Mapping[str, object], task["envs"])
    return {**task, "resources": resources, "envs": {**declared, **envs, "RUN": run}}


@dataclass(kw_only=True, slots=True)
class SkyCloud:
    """SkyPilot's managed jobs, one at a time."""

    task: Path
    name: str
    out: str
    work_s: float
    zones: tuple[str, ...]
    envs: Mapping[str, str]
    retry_s: float
    _job_id: int | None = None
    _place: str = IDLE
    _failed_s: dict[str, float] = field(default_factory=dict[str, float])
    _lost_s: float = 0.0

    def up(self) -> tuple[str, ...]:
        now_s = time.monotonic()
        never = -math.inf
        return tuple(z for z in self.zones if now_s - self._failed_s.get(z, never) >= self.retry_s)

    def place(self) -> str:
        if self._job_id is not None and not self._is_alive(self._job_id):
            self._failed_s[self._place] = time.monotonic()
            self._lost_s += max(self.work_s * (self._taken() - self._saved()), 0.0)
            self.move(IDLE)
        return self._place

    def left_s(self) -> float:
        """Idle, the job has what is saved: a new start takes no other step along."""
        done = self._saved() if self._place == IDLE else self._taken()
        return self.work_s * (1 - done)

    def has_ended(self) -> bool:
        return self._job_id is not None and _states(self._job_id) == {"SUCCEEDED"}

    def lost_s(self) -> float:
        return self._lost_s

    def _taken(self) -> float:
        """Share of the steps that were taken, saved or not."""
        record = self._last_record()
        return 0.0 if record is None else record["step"] / record["num_steps"]

    def _saved(self) -> float:
        """Share of the steps that a whole checkpoint holds."""
        newest, record = next(iter(checkpoint.committed(self.out)), None), self._last_record()
        if newest is None or record is None:
            return 0.0
        return newest.step / record["num_steps"]

    def _last_record(self) -> StepRecord | None:
        return next(reversed(read_metrics(self.out)), None)

    def move(self, place: str) -> None:
        import sky

        if self._job_id is not None:
            sky.get(sky.jobs.cancel(job_ids=[self._job_id], graceful=True))
            self._job_id = None
        self._place = place
        if place == IDLE:
            return
        task = sky.Task.from_yaml_config(task_config(self.task, place, self.name, self.envs))
        job_ids, _ = sky.get(sky.jobs.launch(task, name=self.name))
        self._job_id = job_ids[0] if job_ids else None

    def _is_alive(self, job_id: int) -> bool:
        """A job that SkyPilot calls recovering has lost its machines."""
        states = _states(job_id)
        return bool(states) and not any(
            state == "RECOVERING" or state.startswith(("FAILED", "CANCEL")) for state in states
        )


def _states(job_id: int) -> set[str]:
    """What SkyPilot calls the tasks of a managed job."""
    import sky

    queue = sky.get(sky.jobs.queue(refresh=True, job_ids=[job_id]))
    records = queue[0] if isinstance(queue, tuple) else queue
    return {str(getattr(record["status"], "value", record["status"])) for record in records}


def policy_of(name: str, job: Job, prices: Prices, tick_s: float) -> Policy:
    """By name; nothing is known of these zones before, so `least-cost` begins with its guess."""
    if name == LEAST_COST:
        return least_cost(job, guess(plan_tick_s(job, tick_s)), prices)
    if name not in POLICIES:
        known = ", ".join([*POLICIES, LEAST_COST])
        raise ConfigError(f"--policy is {name!r}; expected one of {known}.")
    return POLICIES[name]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plan", required=True, help="folder of `apps.train plan --save`")
    parser.add_argument("--zones", nargs="+", required=True, help="cloud/region/zone, best first")
    parser.add_argument("--out", required=True, help="the run's folder; its last part is RUN")
    parser.add_argument("--task", type=Path, default=TASK, help="SkyPilot's task file")
    parser.add_argument("--policy", default=LEAST_COST)
    parser.add_argument("--deadline-h", type=float, help="hours; without it, never on demand")
    parser.add_argument("--tick-minutes", type=float, default=5.0)
    parser.add_argument("--retry-minutes", type=float, default=15.0)
    parser.add_argument("--on-demand-price", default="on-demand", help="as in `simulate`")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args(argv)
    plan = configs.from_dict(Plan, storage.read_json(storage.join(arguments.plan, PLAN_NAME)))
    deadline_s = None if arguments.deadline_h is None else arguments.deadline_h * 3600
    job = job_of(plan.training, plan.checkpoints, plan.preemptions, deadline_s)
    prices, dated = _prices(plan, arguments.on_demand_price)
    tick_s = arguments.tick_minutes * 60
    cloud = SkyCloud(
        task=arguments.task,
        name=arguments.out.rstrip("/").rsplit("/", 1)[-1],
        out=arguments.out,
        work_s=job.work_s,
        zones=tuple(arguments.zones),
        envs=dict(pair.split("=", 1) for pair in arguments.env),
        retry_s=arguments.retry_minutes * 60,
    )
    controller = Controller(
        job=job,
        policy=policy_of(arguments.policy, job, prices, tick_s),
        cloud=cloud,
        home=arguments.zones[0],
        tick_s=tick_s,
    )
    kind = f"{plan.machines.num_gpus}x{plan.machines.accelerator}"
    follow(controller, Reporter(), partial(_write, controller, arguments.out, kind, prices, dated))


def _write(controller: Controller, out: str, kind: str, prices: Prices, dated: str) -> None:
    costs.write(out, controller.cost(kind, prices, dated))


def _prices(plan: Plan, on_demand: str) -> tuple[Prices, str]:
    """Of all machines together, and who says so."""
    spot, count = plan.machines.price, plan.machines.num_gpus
    dear = price_table.find(on_demand, plan.machines.accelerator)
    if spot is None or dear is None:
        raise ConfigError(
            f"No price of {plan.machines.accelerator} is known; give `plan --price` and "
            "--on-demand-price, US dollars per GPU and hour."
        )
    hourly = Prices(
        spot_usd=count * spot.usd_per_gpu_hour, on_demand_usd=count * dear.usd_per_gpu_hour
    )
    return hourly, f"spot: {spot.source}; on demand: {dear.source}"


if __name__ == "__main__":
    main()
