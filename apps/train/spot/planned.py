"""From a plan to the job that is simulated, its prices, and what the plan says of waiting."""

import math
from collections.abc import Sequence

from apps.common.errors import ConfigError
from apps.common.spot import trace
from apps.train.planning import prices as price_table
from apps.train.planning.result import Checkpoints, Plan, Preemptions, Training, Waiting
from apps.train.spot import study
from apps.train.spot.job import Job, Prices
from apps.train.spot.policy import any_zone
from apps.train.spot.replay import replay

_STARTS = 24


def job_of(
    training: Training,
    checkpoints: Checkpoints,
    preemptions: Preemptions,
    deadline_s: float | None,
) -> Job:
    """The planned run as a job: its work includes the stalls of its checkpoints."""
    lost = preemptions.lost_work
    noticed = lost.with_notice_s < lost.without_notice_s
    return Job(
        work_s=training.hours * 3600 * (1 + checkpoints.stall_s / checkpoints.interval_s),
        restart_s=preemptions.restart_s,
        checkpoint_s=checkpoints.interval_s,
        flush_s=checkpoints.flush_s,
        notice_loss_s=lost.with_notice_s if noticed else None,
        deadline_s=deadline_s,
    )


def prices_of(plan: Plan, on_demand: str, table_uri: str | None) -> tuple[Prices, str]:
    """Of all machines together, and who says so; spot is what the plan was priced with."""
    accelerator, count = plan.machines.accelerator, plan.machines.num_gpus
    spot = plan.machines.price
    dear = price_table.find(on_demand, accelerator, table_uri, option="--on-demand-price")
    if spot is None or dear is None:
        lacking = "spot price: plan with --price" if spot is None else "price on demand: give"
        option = "" if spot is None else "--on-demand-price "
        raise ConfigError(
            f"{accelerator} has no known {lacking} {option}USD_PER_GPU_HOUR, or --prices FILE."
        )
    if not spot.preemptible:
        raise ConfigError(
            f"--price {spot.name} is of machines that stay, and here it stands for those on spot; "
            "give --price spot where the table has one, or US dollars per GPU and hour."
        )
    if dear.name == "spot":
        raise ConfigError(
            "--on-demand-price spot is of machines that may be taken away; give a column of the "
            "table for those that stay, or US dollars per GPU and hour."
        )
    prices = Prices(
        spot_usd=count * spot.usd_per_gpu_hour, on_demand_usd=count * dear.usd_per_gpu_hour
    )
    return prices, f"spot: {spot.source}; on demand: {dear.source}"


def waiting(job: Job, folders: Sequence[str], num_machines: int) -> Waiting | None:
    """Hours on no machine, if the job takes spot in whichever zone has it; None: too short."""
    outcomes = [
        replay(job, market, any_zone, start)
        for market in trace.read(folders, num_machines)
        for start in study.starts(job, market, _STARTS)
    ]
    if not outcomes:
        return None
    waits_h = [one.waiting_s / 3600 if one.ended else math.inf for one in outcomes]

    def hours(percent: float) -> float | None:
        waits = study.percentile(waits_h, percent)
        return waits if waits < math.inf else None

    return Waiting(
        hours_p50=hours(50),
        hours_p90=hours(90),
        source=f"{len(waits_h)} starts over the traces of {', '.join(folders)}",
    )
