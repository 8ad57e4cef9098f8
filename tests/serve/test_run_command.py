"""`python -m apps.serve run`, as a person starts, changes and stops it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.serve.models import write_model

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = [{"role": "user", "content": "hi"}]


class Command:
    """The command while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.api = self.event("serve.ready")["api"]

    def event(self, *names: str) -> dict:
        """The next event of one of these names."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{") and (found := json.loads(line)).get("event") in names:
                return found
        raise AssertionError(f"the command ended before {names}")

    def status(self, model: str) -> int:
        body = {"model": model, "messages": MESSAGES, "max_tokens": 3}
        return httpx.post(f"{self.api}/chat/completions", json=body, timeout=60).status_code


@contextmanager
def running(file: Path) -> Iterator[Command]:
    argv = f"-W ignore -m apps.serve run {file} --port 0 --log-format json".split()
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, *argv], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Command(process)
        finally:
            process.kill()


def write(file: Path, models: list[dict]) -> None:
    file.write_text(yaml.safe_dump({"models": models, "page": {"enabled": False}}))


@pytest.mark.slow
def test_a_changed_file_is_applied_a_wrong_one_refused_and_the_end_is_clean(
    tmp_path: Path,
) -> None:
    file = tmp_path / "serve.yaml"
    one, two = (
        {"name": name, "path": write_model(tmp_path / name, 1), "resources": {"cpus": 0.5}}
        for name in ("one", "two")
    )
    write(file, [one])
    with running(file) as command:
        assert (command.status("one"), command.status("two")) == (200, 404)
        write(file, [one, two])
        assert command.event("serve.applied", "serve.refused")["models"] == ["one", "two"]
        assert command.status("two") == 200
        write(file, [two, {**one, "options": {"max_running": 0}}])
        assert "max_running is 0" in command.event("serve.applied", "serve.refused")["reason"]
        assert command.status("one") == 200
        write(file, [two])
        assert command.event("serve.applied", "serve.refused")["models"] == ["two"]
        assert (command.status("one"), command.status("two")) == (404, 200)
        command.process.send_signal(signal.SIGTERM)
        assert command.event("serve.stopped")
        assert command.process.wait(60) == 0
