"""`python -m apps.serve run`, as a person starts, changes and stops it."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from tests.serve.models import write_model
from tests.serve.run_command import command, running


def write(file: Path, models: list[dict], **gateway: object) -> None:
    content = {"models": models, "page": {"enabled": False}, "gateway": gateway}
    file.write_text(yaml.safe_dump(content))


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
        write(file, [one, two], limits_url="redis://127.0.0.1:1")
        assert "limits_url cannot" in command.event("serve.applied", "serve.refused")["reason"]
        file.unlink()
        assert "does not exist" in command.event("serve.applied", "serve.refused")["reason"]
        write(file, [two])
        assert command.event("serve.applied", "serve.refused")["models"] == ["two"]
        assert (command.status("one"), command.status("two")) == (404, 200)
        command.process.send_signal(signal.SIGTERM)
        assert command.event("serve.stopped")
        assert command.process.wait(60) == 0


def has(name: str) -> Callable[[psutil.Process], bool]:
    def is_there(service: psutil.Process) -> bool:
        return any(name in " ".join(p.cmdline()) for p in service.children(recursive=True))

    return is_there


@pytest.mark.slow
@pytest.mark.parametrize("process", ["gcs_server", "raylet", "ServeController"])
def test_sigterm_while_it_starts_is_told_and_ends_all_of_it(tmp_path: Path, process: str) -> None:
    file, is_there = tmp_path / "serve.yaml", has(process)
    model = {"name": "one", "path": write_model(tmp_path / "one", 1), "resources": {"cpus": 0.5}}
    write(file, [model])
    with command("run", file, "--port", 0) as started:
        service = psutil.Process(started.pid)
        while not is_there(service):
            time.sleep(0.02)
        processes = service.children(recursive=True)
        started.send_signal(signal.SIGTERM)
        out, _ = started.communicate(timeout=60)
    said = [json.loads(line)["event"] for line in out.splitlines()]
    assert said[-1] == "serve.stopped" and "serve.ready" not in said and started.returncode == 0
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive, [p.cmdline() for p in alive]
