"""Runs steps as child processes and remembers which are done."""

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Iterator

from apps.common.command import process
from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.common.files import config, storage
from apps.quickstart.config import DemoConfig, root
from apps.quickstart.steps import Step


class StepFailed(CriaError):
    """A step's command ended with an error, which it has told."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(
            f"Step {step!r} ended with exit code {code}; "
            "mend what it says above and run the demo again, it goes on from there."
        )
        self.step, self.code = step, code


class Runner:
    """Its child processes end with this one."""

    def __init__(self, demo: DemoConfig, reporter: Reporter, env: dict[str, str]) -> None:
        self._stamps = f"{root(demo)}/.steps"
        self._reporter = reporter
        self._env = env
        self._key = ""

    def run(self, step: Step, key_arguments: tuple[str, ...] | None = None) -> None:
        """Run `step` unless its stamp says that these arguments, after these steps, are done.

        `key_arguments` stand for the arguments in the stamp, where some change by the run: ports.
        Raises StepFailed.
        """
        self._key = config.digest_of([self._key, *(key_arguments or step.arguments)])
        stamp = f"{self._stamps}/{step.name}"
        shown = shlex.join(["python", "-m", *step.arguments])
        is_done = storage.exists(stamp) and storage.read_bytes(stamp).decode() == self._key
        if is_done and storage.exists(step.output):
            self._reporter.line(f"done before: {shown}")
            return
        self._reporter.line(f"$ {shown}")
        with process.child([sys.executable, "-m", *step.arguments], self._env) as child:
            code = child.wait()
        if code != 0:
            raise StepFailed(step.name, code)
        storage.write_atomic(stamp, self._key.encode())

    @contextlib.contextmanager
    def server(self, serve_file: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
        """`python -m apps.serve run` for the length of the block."""
        arguments = ["apps.serve", "run", serve_file, "--port", str(port)]
        self._reporter.line(f"$ {shlex.join(['python', '-m', *arguments])}")
        with process.child([sys.executable, "-m", *arguments], self._env) as child:
            yield child
