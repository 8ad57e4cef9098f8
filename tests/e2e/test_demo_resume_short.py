"""`make demo` killed with SIGKILL during training, and run again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from apps.common.files.storage import COMMIT_NAME

ROOT = Path(__file__).resolve().parents[2]
DEMO = (
    *(
        "-m",
        "apps.quickstart",
        "--no-serve",
        "--model",
        "tiny",
        "--conversations",
        "600",
        "--questions",
        "4",
    ),
    "--train-args=--steps 40 --checkpoint.interval-steps 5",
)


def start(folder: Path, log: str) -> subprocess.Popen[bytes]:
    with (folder / log).open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *DEMO],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for(what: str, found: Any, demo: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + 600
    while not found():
        ended = demo.poll() is not None
        assert not ended and time.monotonic() < deadline_s, f"no {what}\n{log.read_text()[-3000:]}"
        time.sleep(0.1)


def steps_committed(folder: Path) -> list[int]:
    found = (folder / "demo/tiny/run/checkpoints").glob(f"step-*/{COMMIT_NAME}")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in found)


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in log.read_text().splitlines() if row.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_demo_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    demo = start(tmp_path, "first.log")
    try:
        wait_for("checkpoint", lambda: steps_committed(tmp_path), demo, tmp_path / "first.log")
    finally:
        demo.kill()
        demo.wait()
    committed = steps_committed(tmp_path)[-1]

    again = start(tmp_path, "second.log")
    trained = tmp_path / "demo/tiny/.steps/train"
    try:
        wait_for("end of training", trained.exists, again, tmp_path / "second.log")
        os.kill(again.pid, signal.SIGINT)
        assert again.wait(120) == 130
    finally:
        again.kill()
        again.wait()
    seen = events(tmp_path / "second.log")
    resumed = [event["step"] for event in seen if event["event"] == "train.resumed"]
    assert resumed and committed <= resumed[0] < 40
    assert not any(event["event"] in ("clean.done", "pack.done") for event in seen)
    metrics = (tmp_path / "demo/tiny/run/metrics.jsonl").read_text().splitlines()
    assert json.loads(metrics[-1])["step"] == 40
