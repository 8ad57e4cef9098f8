"""The training loop: pure PyTorch, one optimizer step after another.

Every rank runs it in step with the others. What depends on a clock (when to checkpoint, when to
look for a preemption notice) is decided by rank 0 and travels with the all-reduce of the loss.

Legend: A micro-batches of a step, G rows of a global batch.
"""

import gc
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist

from apps.common.errors import CriaError
from apps.train.batches.micro_batch import MicroBatch, Rows, micro_batch
from apps.train.batches.order import NO_ROW, BatchOrder, split
from apps.train.checkpoint.checkpoint import Checkpoints, Commit, RunMark
from apps.train.checkpoint.clock import CheckpointClock
from apps.train.config import RunConfig
from apps.train.loop.metrics import Meter, Skipped, StepResult
from apps.train.loop.profile import StepProfile
from apps.train.loop.progress import Progress
from apps.train.loop.record import Sample, StepRecord
from apps.train.loop.samples import Sampler
from apps.train.loop.schedule import learning_rate
from apps.train.parallel.strategy import Strategy


class StepSums(NamedTuple):
    """What the ranks add up after a step, in the order of the tensor that carries it."""

    loss: float
    """of each rank's own rows, over the supervised tokens of all"""
    tokens: float
    squared_tokens: float
    wants_checkpoint: float
    """this and the next two: 1 from rank 0 where it wishes so, 0 from all others"""
    wants_poll: float
    wants_stop: float


_LOSS, _TOKENS, _SQUARED_TOKENS = range(3)
_WISHES = slice(3, None)
"""places in that tensor"""
SPIKE_WINDOW = 50
STEPS_TO_SETTLE = 2
"""after which what a run needs is imported, compiled and allocated"""


class TrainingStopped(CriaError):
    """The loss left the rails and the policy says stop."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """How the loop talks to whoever runs it. The defaults suit a plain script."""

    on_step: Callable[[StepRecord], None] = lambda record: None
    """called on rank 0 with each step's record"""
    on_event: Callable[[str, Mapping[str, object]], None] = lambda name, fields: None
    """called on rank 0 with things worth a line"""
    on_commit: Callable[[], None] = lambda: None
    """called on rank 0 once a checkpoint is whole, in the thread that writes it"""
    before_checkpoint: Callable[[], None] = lambda: None
    """called on rank 0 before a checkpoint may become visible"""
    preempted: Callable[[], bool] = lambda: False
    """called on all ranks together: is this machine about to go?"""
    after_preemption: Callable[[], None] = lambda: None
    """called on all ranks once the state is safe"""
    stopped: Callable[[], bool] = lambda: False
    """called on rank 0 in each step: shall the run end after it?"""


@dataclass(kw_only=True)
class Loop:
    """One run on this rank."""

    config: RunConfig
    order: BatchOrder
    train_rows: Rows
    val_rows: Rows | None
    strategy: Strategy
    meter: Meter
    checkpoints: Checkpoints | None = None
    commit: RunMark = field(default_factory=RunMark)
    """goes into every checkpoint's marker, beside the progress"""
    hooks: Hooks = field(default_factory=Hooks)
    progress: Progress = field(default_factory=Progress)
    sampler: Sampler | None = None
    """answers fixed prompts every metrics.sample_every_steps"""

    def __post_init__(self) -> None:
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self._recent = deque(self.progress.recent_losses, maxlen=SPIKE_WINDOW)
        self._clock = CheckpointClock(self.config, self.progress.step)
        self._counted_s = time.monotonic()
        self._is_stopped = self._has_lost_patience()

    def run(self) -> None:
        """Train from the current step to the last one, or to the one after which it is stopped."""
        settled_step = self.progress.step + STEPS_TO_SETTLE
        num_traced = self.config.profile if self._rank == 0 else 0
        profile = StepProfile(self.config.out, num_traced, STEPS_TO_SETTLE)
        try:
            while self.progress.step < self.order.num_steps and not self._is_stopped:
                self._step()
                if trace := profile.after_step(self.progress.step):
                    self._tell("profile.written", trace=trace)
                if self.progress.step == settled_step:
                    _keep_what_is_there()
            self._end(profile)
        finally:
            gc.unfreeze()
            profile.close()
        if self.checkpoints is not None:
            if self._clock.saved_step != self.progress.step:
                self._save()
            self.checkpoints.wait()
            self._tell_uncleaned()
        if self._has_lost_patience():
            best = self.progress
            self._tell("stopped.early", best_step=best.best_step, best_val_loss=best.best_val_loss)
        elif self._is_stopped:
            self._tell("stopped", step=self.progress.step)

    def _end(self, profile: StepProfile) -> None:
        """Write what was traced of a run that ends before all steps to be traced."""
        if trace := profile.write(self.progress.step):
            self._tell("profile.written", trace=trace)
        elif profile.has_nothing:
            settling = f"no step was taken after the first {STEPS_TO_SETTLE}, which are not traced"
            self._tell("profile.none", reason=settling)

    def _step(self) -> None:
        started_s = time.monotonic()
        step = self.progress.step
        rows = self.order.global_rows(step)
        supervised = int(self.train_rows.supervised[rows[rows != NO_ROW]].sum())
        rate = learning_rate(step, self.order.num_steps, self.config.optim)
        torch.manual_seed(hash((self.config.seed, step, self._rank)) & 0x7FFFFFFF)
        sums = self._forward_backward(step, 1.0 / max(supervised, 1))
        if self._rank == 0:
            sums[_WISHES] = self._wishes(step + 1)
        dist.all_reduce(sums)
        total = StepSums(*sums.tolist())
        norm, skipped = self._update(step, total.loss, rate)
        progress = self.progress
        progress.step += 1
        progress.tokens += int(total.tokens)
        progress.supervised_tokens += supervised
        step_s = time.monotonic() - started_s
        self._tell_uncleaned()
        val_loss = self._validate() if self._is_validation(progress.step) else None
        is_best = val_loss is not None and progress.validated(val_loss)
        keeps_it = is_best and self.config.checkpoint.keep_best
        sampled_s = time.monotonic()
        samples = self._samples(progress.step)
        sample_s = time.monotonic() - sampled_s
        self._count_time()
        result = StepResult(
            loss=total.loss,
            lr=rate,
            grad_norm=norm,
            skipped=skipped,
            step_s=step_s,
            tokens=int(total.tokens),
            squared_tokens=int(total.squared_tokens),
            supervised_tokens=supervised,
            val_loss=val_loss,
            samples=samples,
            sample_s=sample_s,
        )
        record = self.meter.record(progress, self.order.num_steps, result)
        if self._rank == 0:
            self.hooks.on_step(record)
        is_preempted = bool(total.wants_poll) and self.hooks.preempted()
        if self.checkpoints is not None and (total.wants_checkpoint or is_preempted or keeps_it):
            self._save()
        if is_preempted:
            self._yield_machine()
        asked = bool(total.wants_stop) and self.progress.step < self.order.num_steps
        self._is_stopped = asked or self._has_lost_patience()

    def _count_time(self) -> None:
        now_s = time.monotonic()
        self.progress.seconds += now_s - self._counted_s
        self._counted_s = now_s

    def _has_lost_patience(self) -> bool:
        patience = self.config.metrics.patience
        return patience > 0 and self.progress.num_worse >= patience

    def _wishes(self, step: int) -> torch.Tensor:
        """[checkpoint, look for a preemption notice, stop] after this step, 0 or 1 each."""
        now_s, saves = time.monotonic(), False
        if self.checkpoints is not None:
            is_due = self._clock.wants(step, now_s, is_writing=self.checkpoints.is_writing)
            saves = is_due or self.checkpoints.has_failed  # a failed write is told at once
        wishes = (saves, self._clock.polls(now_s), self.hooks.stopped())
        return torch.tensor([float(w) for w in wishes])

    def _forward_backward(self, step: int, scale: float) -> torch.Tensor:
        """Gradients of one step; returns this rank's StepSums as a tensor, without wishes."""
        mine = self.order.rank_rows(step, self._rank, self._world, self.config.micro_batch_rows)
        self._read_ahead(step + 1)
        sums = torch.zeros(len(StepSums._fields), dtype=torch.float64, device=self.strategy.device)
        for index, rows in enumerate(mine):
            with self.meter.data_wait():
                batch = self._micro_batch(self.train_rows, rows)
            loss = self.strategy.loss(batch, scale)
            self.strategy.backward(loss, is_last=index == len(mine) - 1)
            sums[_LOSS] += loss.detach()
            sums[_TOKENS] += batch.num_tokens
            sums[_SQUARED_TOKENS] += batch.squared_tokens
        return sums

    def _read_ahead(self, step: int) -> None:
        """Have the rows of that step in memory when it comes."""
        if step < self.order.num_steps:
            micro_rows = self.config.micro_batch_rows
            mine = self.order.rank_rows(step, self._rank, self._world, micro_rows)
            self.train_rows.read_ahead(mine[mine != NO_ROW])

    def _micro_batch(self, rows: Rows, indices: np.ndarray) -> MicroBatch:
        return micro_batch(rows, indices, self.strategy.device, with_mask=self.strategy.needs_mask)

    def _update(self, step: int, loss: float, rate: float) -> tuple[float, Skipped | None]:
        """Apply the step unless the fault policy forbids it.

        Returns the gradient norm, nan where none was computed, and what forbade it.
        """
        faults = self.config.faults
        if not math.isfinite(loss):
            self._refuse(f"The loss of step {step + 1} is {loss}", faults.on_nan)
            return math.nan, "loss"
        typical = statistics.median(self._recent) if len(self._recent) == SPIKE_WINDOW else math.inf
        if faults.on_spike != "ignore" and loss > faults.spike_factor * typical:
            reason = (
                f"The loss of step {step + 1} is {loss:.4g}, the median before it {typical:.4g}"
            )
            self._refuse(reason, faults.on_spike)
            return math.nan, "spike"
        norm = self.strategy.update(rate)
        if not math.isfinite(norm):
            self._refuse(f"The gradient norm of step {step + 1} is {norm}", faults.on_nan)
            return norm, "gradient"
        self._recent.append(loss)
        self.progress.updates += 1
        return norm, None

    def _refuse(self, reason: str, policy: str) -> None:
        self.strategy.discard()
        if policy == "stop":
            is_saved = self._clock.saved_step > 0
            newest = "the newest checkpoint is from before it" if is_saved else "none is saved yet"
            if not self.progress.updates:
                remedy = "No step has changed the base yet: look at its weights"
            else:
                remedy = "Lower --optim.lr"
            raise TrainingStopped(
                f"{reason}; training stopped and {newest}. {remedy}, or leave such steps out: "
                "--faults.on-nan skip, --faults.on-spike skip."
            )
        self._tell("step.skipped", reason=f"{reason}; its update was left out.")

    def _is_validation(self, step: int) -> bool:
        every = self.config.metrics.val_every_steps
        if self.val_rows is None or not len(self.val_rows) or not self.config.metrics.val_rows:
            return False
        return step == self.order.num_steps or (every > 0 and step % every == 0)

    def _validate(self) -> float:
        """Mean loss of the first val_rows validation rows."""
        assert self.val_rows is not None
        count = min(len(self.val_rows), self.config.metrics.val_rows)
        num_micro, each = split(count, self._world, self.config.micro_batch_rows)
        slots = np.full(self._world * num_micro * each, NO_ROW)
        slots[:count] = np.arange(count)
        mine = slots.reshape(self._world, num_micro, each)[self._rank]
        supervised = max(int(self.val_rows.supervised[:count].sum()), 1)
        total = torch.zeros((), dtype=torch.float64, device=self.strategy.device)
        for rows in mine:
            batch = self._micro_batch(self.val_rows, rows)
            total += self.strategy.evaluate(batch, 1.0 / supervised)
        dist.all_reduce(total)
        return float(total)

    def _samples(self, step: int) -> list[Sample]:
        """Answers to the fixed prompts where they are due."""
        every = self.config.metrics.sample_every_steps
        is_due = every > 0 and (step % every == 0 or step == self.order.num_steps)
        if self.sampler is None or not is_due:
            return []
        samples = self.sampler.answers(self.strategy)
        for sample in samples:
            self._tell("sample", step=step, **sample)
        return samples

    def _save(self) -> None:
        assert self.checkpoints is not None
        self.progress.recent_losses = list(self._recent)
        if self._rank == 0:
            self.hooks.before_checkpoint()
        marker = {**self.commit, **vars(self.progress), "world_size": self._world}
        stall_s = self.checkpoints.save(self.strategy.state(), cast(Commit, marker))
        self.meter.checkpoint_stall(stall_s)
        self._clock.saved(self.progress.step, stall_s, self.checkpoints.flush_s)
        self._tell("checkpoint.started", step=self.progress.step, stall_s=round(stall_s, 4))

    def _yield_machine(self) -> None:
        if self.checkpoints is not None:
            self.checkpoints.wait()
        self._tell("preempted", step=self.progress.step)
        self.hooks.after_preemption()

    def _tell_uncleaned(self) -> None:
        """Old checkpoints that stay are a warning: the new one is whole."""
        if self.checkpoints is not None and (reason := self.checkpoints.uncleaned()):
            self._tell("checkpoint.not_cleaned", reason=reason)

    def _tell(self, name: str, **fields: object) -> None:
        if self._rank == 0:
            self.hooks.on_event(name, fields)


def _keep_what_is_there() -> None:
    """Have Python's garbage collector look at new objects only.

    Going through all those of torch takes 40 to 70 ms, in which a GPU soon has nothing to do: up to
    three times a step of 2.6 s (7B on one H200).
    """
    gc.collect()
    gc.freeze()
