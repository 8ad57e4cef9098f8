"""How often to write a checkpoint, and what preemptions cost.

First-order model of Young (1974) and Daly (2006): training stands still for d seconds per
checkpoint, preemptions come at random M seconds apart, and each loses the work since the last
committed checkpoint. The overhead d/t + t/(2M) is least at t = sqrt(2 d M).
"""

import math
from dataclasses import dataclass


def optimal_interval_s(stall_s: float, between_preemptions_s: float, flush_s: float = 0.0) -> float:
    """Seconds between checkpoints: Young/Daly, but never shorter than the background flush.

    `stall_s` is how long training stands still per checkpoint, `flush_s` how long the write goes
    on in the background; the next checkpoint cannot start before it has ended.
    """
    return max(math.sqrt(2 * stall_s * between_preemptions_s), flush_s)


def overhead(stall_s: float, between_preemptions_s: float, interval_s: float) -> float:
    """Share of time lost to stalls and to repeated work, by the first-order model."""
    return stall_s / interval_s + interval_s / (2 * between_preemptions_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class LostWork:
    """Training time that one preemption repeats, in seconds."""

    expected_s: float
    """On average: half an interval, plus the flush that had not committed yet."""
    without_notice_s: float
    """At most, when the machine vanishes: one interval plus its flush."""
    with_notice_s: float
    """At most, when the notice is long enough for a checkpoint: one step; else as without."""


def lost_work(interval_s: float, flush_s: float, step_s: float, notice_s: float) -> LostWork:
    """Bounds for one preemption; `notice_s` is how long before it the machine says so."""
    bound = interval_s + flush_s
    fits = notice_s > flush_s + step_s
    return LostWork(
        expected_s=step_s / 2 if fits else interval_s / 2 + flush_s,
        without_notice_s=bound,
        with_notice_s=step_s if fits else bound,
    )


def wall_clock_s(
    training_s: float,
    stall_s: float,
    interval_s: float,
    between_preemptions_s: float,
    lost_s: float,
) -> float:
    """Expected time to the end of a run of `training_s`, every preemption losing `lost_s`.

    `lost_s` is repeated work and restart together. Infinite when preemptions lose more than they
    leave: such a run never ends.
    """
    share_left = 1 - lost_s / between_preemptions_s
    if share_left <= 0:
        return math.inf
    return training_s * (1 + stall_s / interval_s) / share_left
