"""When rank 0 wants a checkpoint or a look for a preemption notice."""

import time

import torch

from apps.train.cadence import optimal_interval_s
from apps.train.checkpoint import Checkpoints
from apps.train.config import RunConfig

FIRST_INTERVAL_S = 30.0
"""the first checkpoint of a run without a set interval measures what one costs"""


class CheckpointClock:
    """Decides by steps where `interval_steps` is set, else by time."""

    def __init__(self, config: RunConfig, step: int) -> None:
        self._config = config.checkpoint
        self._poll_s = config.faults.preemption_poll_s
        self._interval_s = config.checkpoint.interval_s or FIRST_INTERVAL_S
        self._saved_s = self._polled_s = time.monotonic()
        self.saved_step = step

    def wishes(self, step: int, checkpoints: Checkpoints | None) -> torch.Tensor:
        """[checkpoint after this step, poll after this step], 0 or 1 each."""
        now_s = time.monotonic()
        poll = now_s - self._polled_s >= self._poll_s
        if poll:
            self._polled_s = now_s
        return torch.tensor([float(self._wants(step, now_s, checkpoints)), float(poll)])

    def _wants(self, step: int, now_s: float, checkpoints: Checkpoints | None) -> bool:
        if checkpoints is None or step == self.saved_step:
            return False
        if self._config.interval_steps is not None:
            return step % self._config.interval_steps == 0
        return now_s - self._saved_s >= self._interval_s and not checkpoints.is_writing

    def saved(self, step: int, stall_s: float, flush_s: float) -> None:
        """Note a checkpoint; the next interval follows from what this one cost."""
        self.saved_step, self._saved_s = step, time.monotonic()
        if self._config.interval_s is None:
            mtbf_s = self._config.mtbf_h * 3600
            self._interval_s = optimal_interval_s(stall_s, mtbf_s, flush_s)
