"""What each step is measured by, and the files it goes to.

    OUT/metrics.jsonl     one record a step; steps done again after a resume replace the old

Trackers that show them are in trackers.py.
`seconds` and the dollars count validation, checkpoints and steps that a lost machine had taken.
They leave out the time to a start's first step, and the writing of the last checkpoint. `lost_s` of
them went into steps that were taken again.
A step whose update was left out says so in `skipped`: `loss` or `gradient` (not finite) or `spike`
(faults.on_nan, faults.on_spike); its `grad_norm` is not a number where none was computed. What is
not finite is written as the strings "NaN", "Infinity" and "-Infinity" (see json_floats.py).
tokens_per_s counts real tokens (no padding), over all ranks; `mfu` uses the published convention
6N + 12Lds, `mfu_packed` the attention that packed rows really need. LoRA and top layers have less
than 6N (flops.py).
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Literal

import orjson
import torch

from apps.common.errors import StorageError
from apps.common.files import storage
from apps.common.files.json_floats import to_json
from apps.common.files.schema import METRICS_NAME
from apps.train.checkpoint.fence import Fence
from apps.train.config import MetricsConfig
from apps.train.loop.progress import Progress
from apps.train.loop.record import Sample, StepRecord, read_metrics
from apps.train.model import flops
from apps.train.model.shape import ModelShape

_REMOTE_FLUSH_S = 30.0

Skipped = Literal["loss", "gradient", "spike"]
"""what a step's update was left out for"""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one optimizer step came to, over all ranks."""

    loss: float
    """mean over the supervised tokens"""
    lr: float
    grad_norm: float
    """nan where none was computed"""
    skipped: Skipped | None
    """what the update was left out for"""
    step_s: float
    tokens: int
    """real tokens, without padding"""
    squared_tokens: int
    """sum of the squared conversation lengths"""
    supervised_tokens: int
    val_loss: float | None
    """None where this step was not followed by a validation"""
    samples: list[Sample] = field(default_factory=list[Sample])
    """answers after this step, where they were asked for"""
    sample_s: float = 0.0


class Meter:
    """Turns one step's sums into a record."""

    def __init__(
        self,
        config: MetricsConfig,
        shape: ModelShape,
        *,
        row_tokens: int,
        world_size: int,
        device: torch.device,
        peak_flops: float | None,
        adapter_parameters: int = 0,
        trained_layers: int = 0,
    ) -> None:
        """`adapter_parameters` are those of LoRA, `trained_layers` the last ones; 0 where all
        weights, and all layers, are trained."""
        self._config, self._shape, self._row_tokens = config, shape, row_tokens
        self._trained = adapter_parameters, trained_layers
        self._device = device
        self._world_size = world_size
        self._peak = peak_flops * world_size if peak_flops else None
        self._wait_s = self._stall_s = 0.0

    @contextlib.contextmanager
    def data_wait(self) -> Iterator[None]:
        """Time the preparation of a micro-batch."""
        started_s = time.monotonic()
        yield
        self._wait_s += time.monotonic() - started_s

    def checkpoint_stall(self, stall_s: float) -> None:
        """Time that training stood still for a checkpoint; shown in the next record."""
        self._stall_s += stall_s

    def record(self, progress: Progress, num_steps: int, step: StepResult) -> StepRecord:
        """One line of metrics.jsonl."""
        tokens_per_s = step.tokens / step.step_s
        hours = progress.seconds / 3600
        usd = hours * self._config.usd_per_hour
        record: StepRecord = {
            "step": progress.step,
            "num_steps": num_steps,
            "world_size": self._world_size,
            "loss": step.loss,
            "lr": step.lr,
            "grad_norm": step.grad_norm,
            "tokens": progress.tokens,
            "supervised_tokens": progress.supervised_tokens,
            "step_s": step.step_s,
            "tokens_per_s": tokens_per_s,
            "supervised_tokens_per_s": step.supervised_tokens / step.step_s,
            "data_wait_s": self._wait_s,
            "checkpoint_s": self._stall_s,
            "memory_gb": memory_bytes(self._device) / 1e9,
            "seconds": progress.seconds,
        }
        if progress.lost_s:
            record["lost_s"] = progress.lost_s
        if self._config.usd_per_hour:
            record["usd"] = usd
            record["usd_to_go"] = usd * (num_steps - progress.step) / progress.step
        if self._peak:
            shape, trained = self._shape, self._trained
            nominal = flops.nominal_flops_per_token(shape, self._row_tokens, *trained)
            lengths = step.tokens, step.squared_tokens
            packed = flops.packed_flops_per_token(shape, *lengths, *trained)
            record["mfu"] = flops.mfu(tokens_per_s, nominal, self._peak)
            record["mfu_packed"] = flops.mfu(tokens_per_s, packed, self._peak)
        if step.val_loss is not None:
            record["val_loss"] = step.val_loss
        if step.samples:
            record["samples"], record["sample_s"] = step.samples, step.sample_s
        if step.skipped is not None:
            record["skipped"] = step.skipped
        self._wait_s = self._stall_s = 0.0
        return record


def memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: allocated on the GPU, or resident in host memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with open("/proc/self/statm") as handle:
        return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class MetricsLog:
    """Writes metrics.jsonl of a run; rank 0 only.

    Steps that will be taken again leave the file with the first step that is: an attempt that dies
    before it must not take the seconds they cost out of the count.
    """

    def __init__(self, fence: Fence, *, resumed_step: int) -> None:
        self._fence = fence
        self._uri = storage.join(fence.run_uri, METRICS_NAME)
        self._lines = [r for r in read_metrics(fence.run_uri) if r["step"] <= resumed_step]
        self._is_local = storage.is_local(self._uri)
        self._flushed_s = time.monotonic()
        self._file: IO[bytes] | None = None

    def write(self, record: StepRecord) -> None:
        if self._is_local:
            if self._file is None:
                if not self._rewrite():
                    return
                self._file = open(storage.local_path(self._uri), "ab")  # noqa: SIM115
            self._append(self._file, record)
        else:
            self._lines.append(record)
            if time.monotonic() - self._flushed_s >= _REMOTE_FLUSH_S:
                self._rewrite()

    def _append(self, file: IO[bytes], record: StepRecord) -> None:
        try:
            file.write(_line(record))
            file.flush()
        except OSError as error:
            raise StorageError(
                f"Step {record['step']} could not be written to {self._uri} ({error.strerror}); "
                "free some space and run the same command again."
            ) from error

    def flush(self) -> None:
        """Everything written so far survives the end of this process."""
        if not self._is_local:
            self._rewrite()

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            with contextlib.suppress(OSError):  # a line left in the buffer was told by `write`
                self._file.close()

    def _rewrite(self) -> bool:
        """Replace the file, unless it is another command's by now; returns whether it was ours."""
        is_ours = self._fence.newer_host() is None
        if is_ours:
            storage.write_atomic(self._uri, b"".join(_line(record) for record in self._lines))
        self._flushed_s = time.monotonic()
        return is_ours


def _line(record: StepRecord) -> bytes:
    return orjson.dumps(to_json(record)) + b"\n"
