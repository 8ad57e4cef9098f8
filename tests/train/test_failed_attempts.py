"""An attempt of a real run fails: one sentence says why, at once, and training goes on."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apps.train.config import CheckpointConfig, FaultConfig
from tests.train.chaos import chaos_config, finish, on_machines, running, wait_for_step
from tests.train.conftest import small_config

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]
DISK_BYTES = 64 << 20


def failures(printed: str) -> list[str]:
    events = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return [e["reason"] for e in events if e["event"] == "train.attempt_failed"]


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 64 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(mount).returncode:
        pytest.skip("this machine lets nobody mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_with_room_again_training_goes_on(
    small_base, small_pack, tmp_path, disk
) -> None:
    config = chaos_config(small_base, small_pack, disk / "run")
    log = tmp_path / "log"
    ballast = disk / "ballast"
    with running(config, log) as process:
        wait_for_step(config, 20, process)
        with open(ballast, "wb") as handle, pytest.raises(OSError, match="No space left"):
            while True:
                handle.write(bytes(1 << 16))
                handle.flush()
        while "train.attempt_failed" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        ballast.unlink()
        finish(process, log)
    reasons = failures(log.read_text())
    assert "No space left on device" in reasons[0] and "free some" in reasons[0]
    assert reasons[0].startswith("Rank 0 on ")
    assert "Training starts again from step " in reasons[0]
    assert "Traceback" not in log.read_text()


def test_a_machine_that_is_gone_is_told(small_base, small_pack, tmp_path) -> None:
    config = chaos_config(small_base, small_pack, tmp_path / "run")
    printed = on_machines(config, "lose", 40, tmp_path / "run.yaml")
    (reason,) = failures(printed)
    # Whether Ray knows of the machine by then, or only that the other rank lost its connection.
    assert "its machine is gone." in reason or "process or machine may be gone (" in reason
    assert "Training starts again from step " in reason
    assert "Traceback" not in printed


def test_workers_that_have_no_keys_of_the_bucket_are_told(
    s3, small_base, small_pack, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.aws
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3.create_bucket(Bucket="keyless")
    config = replace(
        small_config(small_base, small_pack, tmp_path),
        out="s3://keyless/run",
        faults=FaultConfig(max_failures=1),
        checkpoint=CheckpointConfig(interval_steps=4),
    )
    printed = on_machines(config, "keyless", 0, tmp_path / "run.yaml")
    said = printed.strip().splitlines()[-1]
    assert "Unable to locate credentials" in said
    assert "Its Ray must have the credentials of s3://keyless/run" in said
    assert "Traceback" not in printed
