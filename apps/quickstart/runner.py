"""Runs steps as child processes, side by side where they can, and remembers which are done."""

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """Its child processes end with this one."""

    def __init__(self, demo: DemoConfig, reporter: Reporter, env: dict[str, str]) -> None:
        self._stamps = f"{root(demo)}/.steps"
        self._reporter = reporter
        self._env = env
        self._keys: dict[str, str] = {}

    def run(self, steps: Sequence[Step], hidden: str = "") -> None:
        """Run `steps`, each at once when those that it needs are done.

        Left out is a step whose stamp says that its arguments, after those of the steps that it
        needs, are done. `hidden` is a part of the arguments that stamps leave out, because it
        changes by the run: an address. Raises StepFailed at the first failure, and stops the rest.
        """
        waiting, running = list(steps), list[_Begun]()
        with contextlib.ExitStack() as children:
            while waiting or running:
                for step in [s for s in waiting if self._may_begin(s, [*waiting, *running])]:
                    waiting.remove(step)
                    if not self._is_done(step, hidden):
                        running.append(self._begin(step, running, children))
                self._end_one(running)

    def _may_begin(self, step: Step, others: Sequence[Step | _Begun]) -> bool:
        names = {(o.step if isinstance(o, _Begun) else o).name for o in others}
        return not names & set(step.needs)

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

    def _begin(
        self, step: Step, running: Sequence[_Begun], children: contextlib.ExitStack
    ) -> _Begun:
        """Start its command. Two progress bars would fight over a terminal, so that the second of
        two steps prints into a file, which is shown when it ends."""
        is_beside = not self._reporter.is_json and any(begun.log is None for begun in running)
        log = Path(storage.local_path(f"{self._stamps}/{step.name}.log")) if is_beside else None
        self._reporter.line(f"$ {_shown(step)}" + (f"   (beside; in {log})" if log else ""))
        arguments = [sys.executable, "-m", *step.arguments]
        if log is None:
            child = children.enter_context(process.child(arguments, self._env))
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = children.enter_context(log.open("wb"))
            arguments += ["--log-format", "text"]
            child = children.enter_context(process.child(arguments, self._env, output))
        return _Begun(step=step, child=child, log=log, started_s=time.monotonic())

    def _end_one(self, running: list[_Begun]) -> None:
        """Wait for one of the commands, if any runs, and stamp its step."""
        while running:
            for begun in running:
                if (code := begun.child.poll()) is not None:
                    running.remove(begun)
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
        with process.child([sys.executable, "-m", *arguments], self._env) as child:
            yield child


def _shown(step: Step) -> str:
    return shlex.join(["python", "-m", *step.arguments])
