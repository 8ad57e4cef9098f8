"""From a plan to the job that is simulated, and what the plan says of waiting."""

from collections.abc import Sequence

from apps.train.planning.result import Checkpoints, Preemptions, Training, Waiting
from apps.train.spot import study, trace
from apps.train.spot.job import Job
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


def waiting(job: Job, folders: Sequence[str], num_machines: int) -> Waiting | None:
    """Hours on no machine, if the job takes spot in whichever zone has it; None: too short."""
    waits_h = [
        replay(job, market, any_zone, start).waiting_s / 3600
        for market in trace.read(folders, num_machines)
        for start in study.starts(job, market, _STARTS)
    ]
    if not waits_h:
        return None
    return Waiting(
        hours_p50=study.percentile(waits_h, 50),
        hours_p90=study.percentile(waits_h, 90),
        source=f"{len(waits_h)} starts over the traces of {', '.join(folders)}",
    )
