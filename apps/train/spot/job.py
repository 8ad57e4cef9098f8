"""The job as a policy and the simulator see it: work, restarts, and what a preemption loses."""

import math
from dataclasses import dataclass

from apps.common.errors import ConfigError

IDLE = "idle"
"""the place of a job that has no machines"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Times in seconds; a deadline counts from the start."""

    work_s: float
    """Training, with the stalls of its checkpoints."""
    restart_s: float
    """From taking machines to training on: paid for, and no work is done."""
    checkpoint_s: float
    """Between two checkpoints."""
    flush_s: float = 0.0
    """A checkpoint counts this long after it was taken."""
    notice_loss_s: float | None = None
    """Work lost where the notice is long enough for a checkpoint; None: it is not."""
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if self.deadline_s is not None and not math.isfinite(self.deadline_s):
            raise ConfigError(
                f"The deadline is {self.deadline_s / 3600} h; expected a number of hours, or none."
            )
        least_h = (self.work_s + self.restart_s) / 3600
        if self.deadline_s is not None and self.deadline_s < self.work_s + self.restart_s:
            raise ConfigError(
                f"The deadline is {self.deadline_s / 3600:.1f} h, but on demand alone the job "
                f"takes {least_h:.1f} h; give a later one, or more GPUs."
            )

    def lost_s(self, session_s: float) -> float:
        """Work that is gone when machines vanish after `session_s` of training on them.

        Worked example: a checkpoint every 600 s that takes 50 s to write. After 1,240 s the second
        one is not written yet, so 640 s are gone; after 1,250 s only 50 s.
        """
        if self.notice_loss_s is not None:
            return min(session_s, self.notice_loss_s)
        whole = max(session_s - self.flush_s, 0.0) // self.checkpoint_s
        return session_s - whole * self.checkpoint_s

    @property
    def most_lost_s(self) -> float:
        """At most, by one preemption."""
        if self.notice_loss_s is not None:
            return self.notice_loss_s
        return self.checkpoint_s + self.flush_s


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a policy knows when it decides: nothing of the future."""

    elapsed_s: float
    left_s: float
    """Work still to do."""
    place: str
    """IDLE, ON_DEMAND or a zone; a job whose zone was taken away is idle."""
    up: tuple[str, ...]
    """Zones that have machines now, in the order in which they are taken."""
    home: str
    """The first zone of all, whether up or not."""
    up_s: float
    """How long some zone has had machines without a break, this tick with it; 0: none has."""
    tick_s: float
    """Until the next decision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """US dollars per hour of all machines of the job together."""

    spot_usd: float
    on_demand_usd: float
