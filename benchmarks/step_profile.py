"""Where the time of a training step goes: kernels by time, and the gaps in which none ran."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LONGEST_GAPS = 25


class StepProfile:
    """Profiles the step `num_steps` of a run and writes what was found to `path`."""

    def __init__(self, path: str, num_steps: int) -> None:
        self._path, self._num_steps = path, num_steps
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)

    def after(self, on_step: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        """The hook that calls `on_step`, then starts or ends the profile."""

        def hook(record: dict[str, Any]) -> None:
            on_step(record)
            if record["step"] == self._num_steps - 1:
                self._profiler.start()
            elif record["step"] == self._num_steps:
                self._profiler.stop()
                self._write(record["step_s"])

        return hook

    def _write(self, step_s: float) -> None:
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = self._profiler.key_averages().table(
            sort_by=order, row_limit=40, max_name_column_width=70
        )
        Path(self._path).write_text(self._idle(step_s) + table)

    def _idle(self, step_s: float) -> str:
        """How long no kernel or copy ran, and the longest of these gaps with what ended them."""
        kernels = sorted(
            (event.time_range.start, event.time_range.end, event.name)
            for event in self._profiler.events() or []
            if event.device_type == torch.autograd.DeviceType.CUDA
        )
        gaps, until_us = [], kernels[0][0] if kernels else 0.0
        for start_us, end_us, name in kernels:
            if start_us > until_us:
                gaps.append((start_us - until_us, start_us - kernels[0][0], name))
            until_us = max(until_us, end_us)
        idle_s = sum(gap[0] for gap in gaps) / 1e6
        lines = [f"idle {idle_s:.3f} s in {len(gaps)} gaps of a step of {step_s:.3f} s"]
        for gap_us, at_us, name in sorted(gaps, reverse=True)[:LONGEST_GAPS]:
            lines.append(f"  {gap_us / 1e3:7.2f} ms at {at_us / 1e3:8.1f} ms, before {name[:90]}")
        return "\n".join([*lines, ""])
