"""Runs steps as child processes, side by side where they can, and remembers which are done."""

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from apps.common.command import process
from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.common.files import config, storage
from apps.quickstart.config import DemoConfig, root
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Begun:
    """A step whose command runs."""

    step: Step
    child: subprocess.Popen[bytes]
    log: Path | None
    """holds what it prints; None: it prints where the demo does"""
    started_s: float


class Runner:
    """Runs steps for the length of a `with` block; its child processes end with that.

    with Runner(demo, reporter, env) as runner:
        runner.run(steps)
    """

    def __init__(self, demo: DemoConfig, reporter: Reporter, env: Mapping[str, str]) -> None:
        self._stamps = f"{root(demo)}/.steps"
        self._reporter = reporter
        self.env = dict(env)
        """of the commands that are still to begin"""
        self._keys: dict[str, str] = {}
        self._running: list[_Begun] = []
        self._children = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what runs."""
        self._children.close()

    def run(self, steps: Sequence[Step], hidden: str = "") -> None:
        """Run `steps`, each at once when those that it needs are done.

        Left out is a step whose stamp says that its arguments, after those of the steps that it
        needs, are done. `hidden` is a part of the arguments that stamps leave out, because it
        changes by the run: an address. Raises StepFailed at the first failure; what else runs then
        is stopped with the block.
        """
        waiting = [step for step in steps if step.name not in self._keys]
        while waiting or self._running:
            self._begin_those_that_can(waiting, hidden)
            self._end_one()

    def begin(self, steps: Sequence[Step]) -> None:
        """Begin those of `steps` that need neither others nor Ray, which may be starting still;
        `run` goes on with all."""
        self._begin_those_that_can([s for s in steps if not s.needs and not s.uses_ray])

    def _begin_those_that_can(self, waiting: list[Step], hidden: str = "") -> None:
        """Take them from `waiting`; one that is done already may be what others wait for."""
        while ready := [step for step in waiting if not self._lacks(step, waiting)]:
            for step in ready:
                waiting.remove(step)
                if not self._is_done(step, hidden):
                    self._running.append(self._begin(step))

    def _lacks(self, step: Step, waiting: Sequence[Step]) -> bool:
        names = {s.name for s in waiting} | {begun.step.name for begun in self._running}
        return not names.isdisjoint(step.needs)

    def _is_done(self, step: Step, hidden: str) -> bool:
        """Whether an earlier run did it, which is told."""
        plain = [a.replace(hidden, "") if hidden else a for a in step.arguments]
        before = [self._keys[name] for name in step.needs if name in self._keys]
        key = self._keys[step.name] = config.digest_of([*before, *plain])
        stamp = self._stamp(step)
        is_stamped = storage.exists(stamp) and storage.read_bytes(stamp).decode() == key
        if is_stamped and storage.exists(step.output):
            self._reporter.line(f"done before: {_shown(step)}")
            return True
        return False

    def _begin(self, step: Step) -> _Begun:
        """Start its command. Two progress bars would fight over a terminal, so that the second of
        two steps prints into a file, which is shown when it ends."""
        is_beside = any(begun.log is None for begun in self._running)
        log = self._log(step) if is_beside and not self._reporter.is_json else None
        self._reporter.line(f"$ {_shown(step)}" + (f"   (beside; in {log})" if log else ""))
        arguments = [sys.executable, "-m", *step.arguments]
        output = None
        if log is not None:
            arguments += ["--log-format", "text"]
            output = self._children.enter_context(log.open("wb"))
        child = self._children.enter_context(process.child(arguments, self.env, output))
        return _Begun(step=step, child=child, log=log, started_s=time.monotonic())

    def _log(self, step: Step) -> Path:
        path = Path(storage.local_path(f"{self._stamps}/{step.name}.log"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _end_one(self) -> None:
        """Wait for one of the commands, if any runs, and stamp its step."""
        while self._running:
            for begun in self._running:
                if (code := begun.child.poll()) is not None:
                    self._running.remove(begun)
                    self._end(begun, code)
                    return
            time.sleep(_LOOK_EVERY_S)

    def _end(self, begun: _Begun, code: int) -> None:
        if begun.log is not None:
            said = begun.log.read_text(errors="replace").rstrip()
            took_s = time.monotonic() - begun.started_s
            self._reporter.line(f"ended after {took_s:.0f} s: {_shown(begun.step)}\n{said}".strip())
        if code != 0:
            raise StepFailed(begun.step.name, code)
        storage.write_atomic(self._stamp(begun.step), self._keys[begun.step.name].encode())

    def _stamp(self, step: Step) -> str:
        return f"{self._stamps}/{step.name}"

    @contextlib.contextmanager
    def server(self, serve_file: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
        """`python -m apps.serve run` for the length of the block."""
        arguments = ["apps.serve", "run", serve_file, "--port", str(port)]
        self._reporter.line(f"$ {shlex.join(['python', '-m', *arguments])}")
        with process.child([sys.executable, "-m", *arguments], self.env) as child:
            yield child


def _shown(step: Step) -> str:
    return shlex.join(["python", "-m", *step.arguments])
