"""When rank 0 wants a checkpoint or a look for a preemption notice."""

import time

from apps.train.checkpoint.cadence import optimal_interval_s
from apps.train.config import RunConfig

FIRST_INTERVAL_S = 30.0
"""the first checkpoint of a run without a set interval measures what one costs"""


class CheckpointClock:
    """Decides by steps where `interval_steps` is set, else by time."""

    def __init__(self, config: RunConfig, step: int) -> None:
        self._config = config.checkpoint
        self._poll_s = config.faults.preemption_poll_s
        self._saved_s = self._polled_s = time.monotonic()
        self.interval_s = config.checkpoint.interval_s or FIRST_INTERVAL_S
        self.saved_step = step

    def wants(self, step: int, now_s: float, *, is_writing: bool) -> bool:
        """Is a checkpoint due after this step?"""
        if step == self.saved_step:
            return False
        if self._config.keep_every_steps and step % self._config.keep_every_steps == 0:
            return True
        if self._config.interval_steps is not None:
            return step % self._config.interval_steps == 0
        return now_s - self._saved_s >= self.interval_s and not is_writing

    def polls(self, now_s: float) -> bool:
        """Is it time to look for a preemption notice?"""
        if now_s - self._polled_s < self._poll_s:
            return False
        self._polled_s = now_s
        return True

    def saved(self, step: int, stall_s: float, flush_s: float) -> None:
        """Note a checkpoint; the next interval follows from what this one cost."""
        self.saved_step, self._saved_s = step, time.monotonic()
        if self._config.interval_s is None:
            mtbf_s = self._config.mtbf_h * 3600
            self.interval_s = optimal_interval_s(stall_s, mtbf_s, flush_s)
