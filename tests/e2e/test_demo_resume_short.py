"""`make demo` killed with SIGKILL during training, and run again."""

import json
import os
import signal
from pathlib import Path

import pytest

from apps.common.files.storage import COMMIT_NAME
from tests.e2e.demo import events, start, wait_for


def steps_committed(folder: Path) -> list[int]:
    found = (folder / "demo/tiny/run/checkpoints").glob(f"step-*/{COMMIT_NAME}")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in found)


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
