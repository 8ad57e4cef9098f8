"""A torch profiler trace of a few steps of rank 0 (`--profile 3`).

    OUT/profile/steps-3-to-5.json.gz     for https://ui.perfetto.dev or chrome://tracing

The first steps of an attempt compile and allocate, so the trace begins after them. A traced step
takes longer than others; its losses are the same.
"""

import os
import shutil
import tempfile

import torch
from torch.profiler import ProfilerActivity

from apps.common.files import storage


class StepProfile:
    """Records `num_steps` steps, those after the first `num_settling` of an attempt."""

    def __init__(self, run_uri: str, num_steps: int, num_settling: int) -> None:
        self._run_uri, self._num_steps, self._num_settling = run_uri, num_steps, num_settling
        self._num_taken = 0
        self._profiler: torch.profiler.profile | None = None

    def after_step(self, step: int) -> str | None:
        """To be called after each step; where the trace lies, once it is written."""
        self._num_taken += 1
        if self._num_taken == self._num_settling and self._num_steps:
            self._start()
        elif self._num_taken == self._num_settling + self._num_steps:
            return self.write(step)
        return None

    @property
    def has_nothing(self) -> bool:
        """Was a trace asked for, and is none to come of the steps so far?"""
        return self._num_steps > 0 and self._num_taken <= self._num_settling

    def close(self) -> None:
        """End a recording that an error has cut off."""
        if self._profiler is not None:
            self._profiler.stop()

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.start()

    def write(self, step: int) -> str | None:
        """End the recording after that step, where one is under way; where the trace lies."""
        num_traced = self._num_taken - self._num_settling
        if self._profiler is None or not num_traced:
            return None
        self._profiler.stop()
        name = f"steps-{step - num_traced + 1}-to-{step}.json.gz"
        uri = storage.join(self._run_uri, "profile", name)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, name)
            self._profiler.export_chrome_trace(path)
            with open(path, "rb") as source, storage.atomic_file(uri) as target:
                shutil.copyfileobj(source, target)
        self._profiler = None
        return uri
