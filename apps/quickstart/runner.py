"""Runs steps as child processes, side by side where they can, and leaves out what is done."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Self

from apps.common.command import process
from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.quickstart.config import DemoConfig, root
from apps.quickstart.running import RunningStep, running_step, shown
from apps.quickstart.stamps import Stamps
from apps.quickstart.steps import Step

_LOOK_EVERY_S = 0.05


class StepFailed(CriaError):
    """A step's command ended with an error, which it has told."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(
            f"Step {step!r} ended with exit code {code}; "
            "mend what it says above and run the demo again, it goes on from there."
        )
        self.step, self.code = step, code
        self.exit_code = 2 if code == 2 else 1


class Runner:
    """Its child processes end with its `with` block."""

    def __init__(self, demo: DemoConfig, reporter: Reporter, env: Mapping[str, str]) -> None:
        self.env = dict(env)
        """of the commands that are still to begin"""
        self._stamps = Stamps(f"{root(demo)}/.steps")
        self._reporter = reporter
        self._running: list[RunningStep] = []
        self._children = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what runs."""
        self._children.close()

    def begin(self, steps: Sequence[Step]) -> None:
        """Begin those of `steps` that need neither others nor Ray, which may be starting still;
        `run` goes on with all."""
        self._begin_those_that_can([s for s in steps if not s.needs and not s.uses_ray], "")

    def run(self, steps: Sequence[Step], hidden: str = "") -> None:
        """Run `steps`, each at once when those that it needs are done.

        `hidden` is a part of the arguments that stamps leave out, because it changes by the run: an
        address. Raises StepFailed at the first failure; what else runs is stopped by `close`.
        """
        waiting = [step for step in steps if not self._stamps.knows(step)]
        while waiting or self._running:
            self._begin_those_that_can(waiting, hidden)
            self._end_one()

    def _begin_those_that_can(self, waiting: list[Step], hidden: str) -> None:
        """Take them from `waiting`; one that is done already may be what others wait for."""
        while ready := [step for step in waiting if not self._lacks(step, waiting)]:
            for step in ready:
                waiting.remove(step)
                if self._stamps.is_done(step, hidden):
                    self._reporter.line(f"done before: {shown(step.arguments)}")
                else:
                    self._begin(step)

    def _lacks(self, step: Step, waiting: Sequence[Step]) -> bool:
        names = {s.name for s in waiting} | {running.step.name for running in self._running}
        return not names.isdisjoint(step.needs)

    def _begin(self, step: Step) -> None:
        """Two progress bars would fight over a terminal, so that there the second of two steps
        prints into a file, which is shown when it ends."""
        is_beside = any(running.log is None for running in self._running)
        log = self._stamps.log_of(step) if is_beside and not self._reporter.is_json else None
        where = f"   (beside; prints into {log})" if log else ""
        self._reporter.line(f"$ {shown(step.arguments)}{where}")
        self._running.append(self._children.enter_context(running_step(step, self.env, log)))

    def _end_one(self) -> None:
        """Wait for one of the commands, if any runs, and stamp its step."""
        while self._running:
            for running in self._running:
                if (code := running.child.poll()) is not None:
                    self._running.remove(running)
                    if running.log is not None:
                        self._reporter.line(running.told())
                    if code != 0:
                        raise StepFailed(running.step.name, code)
                    self._stamps.put(running.step)
                    return
            time.sleep(_LOOK_EVERY_S)

    @contextlib.contextmanager
    def server(self, serve_file: str, port: int) -> Generator[subprocess.Popen[bytes]]:
        """`python -m apps.serve run` for the length of the block."""
        arguments = ("apps.serve", "run", serve_file, "--port", str(port))
        self._reporter.line(f"$ {shown(arguments)}")
        with process.child([sys.executable, "-m", *arguments], self.env) as child:
            yield child
