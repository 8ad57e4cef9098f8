"""Where a job runs next: spot in some zone, on demand, or nowhere for now.

The same functions decide in the simulator and in `cluster/launch.py`. The deadline policies follow
Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under Deadlines" (NSDI '24): greedy
waits for spot machines until the deadline forces it on demand; Uniform Progress goes on demand
whenever it falls behind the straight line from nothing at the start to everything at the deadline.
"""

from collections.abc import Callable
from dataclasses import dataclass

from apps.common.spot.trace import ON_DEMAND
from apps.train.spot.job import IDLE, Job, View

Policy = Callable[[Job, View], str]
"""(job, what is known now) -> the place for the next tick."""


def wait(job: Job, view: View) -> str:
    """Spot in the job's home zone, and patience; never on demand."""
    return view.home if view.home in view.up else IDLE


def any_zone(job: Job, view: View) -> str:
    """Spot in whichever zone has machines; never on demand."""
    return spot_zone(view) or IDLE


def greedy(job: Job, view: View) -> str:
    """Spot where there is some, until only on demand is sure to keep the deadline."""
    if must_be_sure(job, view):
        return ON_DEMAND
    return spot_zone(view) or IDLE


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Work that should be done, over time: straight, from `begins` to the deadline.

    Published: from the start, and spot wherever it shows. That pays for on-demand hours which later
    spot hours would have made needless, and where machines stay for minutes its moves cost more
    than they save. A line that begins with all slack gone is greedy.
    """

    begins: float
    """Share of the slack that may pass first."""
    settle_restarts: float
    """Spot machines are worth leaving on-demand ones for after so many restarts' time."""

    def expected_s(self, job: Job, deadline_s: float, elapsed_s: float) -> float:
        """Worked example: 40 h of work, deadline 60 h, line from .5: it begins at 10 h; at 35 h,
        half way to the deadline, 20 h should be done."""
        begins_s = self.begins * (deadline_s - job.work_s)
        return max(elapsed_s - begins_s, 0.0) * job.work_s / (deadline_s - begins_s)


PUBLISHED = Line(begins=0.0, settle_restarts=0.0)
LINES = tuple(
    Line(begins=begins, settle_restarts=settle)
    for begins in (0.0, 0.3, 0.6, 0.8, 1.0)
    for settle in (0.0, 4.0)
)


def uniform_progress(job: Job, view: View, line: Line = PUBLISHED) -> str:
    """Spot where there is some; without, on demand while behind the line.

    Once on demand, the job stays until it is ahead by two restarts: less would not pay the stop.
    """
    if must_be_sure(job, view):
        return ON_DEMAND
    zone = spot_zone(view)
    if job.deadline_s is None:
        return zone or IDLE
    ahead_s = 0.0
    if view.place == ON_DEMAND:
        ahead_s = 2 * job.restart_s
        if view.up_s < line.settle_restarts * job.restart_s:
            zone = None
    if zone:
        return zone
    expected_s = line.expected_s(job, job.deadline_s, view.elapsed_s + ahead_s)
    return ON_DEMAND if job.work_s - view.left_s < expected_s else IDLE


def spot_zone(view: View) -> str | None:
    """The zone where the job is, for as long as it may stay; else the first that is up."""
    if view.place in view.up:
        return view.place
    return view.up[0] if view.up else None


def must_be_sure(job: Job, view: View) -> bool:
    """Whether only on demand is left: one more lost session on spot could miss the deadline.

    On a spot machine the slack does not shrink: it may stay.
    """
    if job.deadline_s is None or view.place in view.up:
        return False
    return job.deadline_s - view.elapsed_s - view.left_s < sure_s(job, view.tick_s)


def sure_s(job: Job, tick_s: float) -> float:
    """Slack that a session on spot may need: its restart and all that a preemption loses, and then
    the restart on demand. Waiting costs a tick."""
    return job.restart_s + max(job.restart_s + job.most_lost_s, tick_s)


POLICIES: dict[str, Policy] = {
    "wait": wait,
    "any-zone": any_zone,
    "greedy": greedy,
    "uniform-progress-2024": uniform_progress,
}
"""Those that need to know nothing before. `learnt.py` has those that are fitted to a history."""
