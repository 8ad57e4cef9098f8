"""A step's command while it runs, and where it prints."""

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from apps.common.command import process
from apps.quickstart.steps import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningStep:
    """A child process that does a step."""

    step: Step
    child: subprocess.Popen[bytes]
    log: Path | None
    """holds what it prints; None: it prints where the demo does"""
    started_s: float

    def told(self) -> str:
        """What it printed into its log, under its command and the seconds it took."""
        assert self.log is not None
        said = self.log.read_text(errors="replace").rstrip()
        took_s = time.monotonic() - self.started_s
        return f"ended after {took_s:.0f} s: {shown(self.step.arguments)}\n{said}".rstrip()


@contextlib.contextmanager
def running_step(step: Step, env: Mapping[str, str], log: Path | None) -> Generator[RunningStep]:
    """Run the step's command for at most the length of the block; with a log, in plain text."""
    arguments = [sys.executable, "-m", *step.arguments]
    with contextlib.ExitStack() as stack:
        output = None
        if log is not None:
            arguments += ["--log-format", "text"]
            output = stack.enter_context(log.open("wb"))
        child = stack.enter_context(process.child(arguments, env, output))
        yield RunningStep(step=step, child=child, log=log, started_s=time.monotonic())


def shown(arguments: tuple[str, ...]) -> str:
    """The command as a person would type it."""
    return shlex.join(["python", "-m", *arguments])
