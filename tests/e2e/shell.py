"""The apps' public command lines, as a person would type them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from apps.common.command import cli

ROOT = Path(__file__).resolve().parents[2]


class Shell:
    """Runs the commands of the apps as `python -m apps...` does, joined to the session's Ray.

    Serving runs in a process of its own; the others share this one, and so its imports.
    """

    def __init__(self, session: Any, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        patch.chdir(folder)
        for name, value in session.child_env().items():
            patch.setenv(name, value)

    def __call__(self, line: str) -> None:
        program, *argv = line.split()
        commands = import_module(f"{program}.__main__").COMMANDS
        assert cli.run(program, commands, [*argv, "--log-format", "json"]) == 0, line

    @contextmanager
    def serving(self, config: Path) -> Iterator[str]:
        """`apps.serve run` in the background; yields the address of its API."""
        log = open(self.folder / "serve.log", "w+")  # noqa: SIM115
        line = f"-m apps.serve run {config.name} --port 0 --log-format json"
        argv = [sys.executable, "-W", "ignore", *line.split()]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (
            log,
            subprocess.Popen(
                argv, env=env, stdout=subprocess.PIPE, stderr=log, text=True
            ) as server,
        ):
            assert server.stdout
            try:
                for row in server.stdout:
                    if row.startswith("{") and json.loads(row).get("event") == "serve.ready":
                        break
                else:
                    raise AssertionError((self.folder / "serve.log").read_text()[-3000:])
                yield json.loads(row)["api"]
            finally:
                server.terminate()
                server.wait(60)
