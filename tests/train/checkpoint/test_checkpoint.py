"""Checkpoints on a local disk; on S3 in test_checkpoint_s3.py."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from apps.common.errors import StorageError
from apps.common.files import storage
from apps.common.files.schema import checkpoint_name, checkpoint_step
from apps.common.packs import open_pack
from apps.train.batches.micro_batch import PackRows
from apps.train.checkpoint import checkpoint
from apps.train.checkpoint.checkpoint import (
    Checkpoints,
    collect_garbage,
    damage,
    drop_after,
    newest,
)
from apps.train.checkpoint.clock import CheckpointClock
from apps.train.config import CheckpointConfig
from apps.train.loop.loop import Hooks
from apps.train.loop.worker import process_group, work
from apps.train.presets import debug
from tests.train.ranks import on_ranks


@pytest.fixture(scope="module")
def alone():
    with process_group():
        yield


def save(run: Path, steps: list[int], **settings: object) -> Checkpoints:
    """Checkpoints of the given steps, each holding its own number."""
    writer = Checkpoints(str(run), CheckpointConfig(**{"keep_last": 9} | settings), "cpu")
    for step in steps:
        state = {"model": {"w": torch.full((3, 2), float(step))}}
        writer.save(state, {"step": step})
    writer.wait()
    return writer


def names(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def read(run: Path) -> tuple[float, list[str]]:
    """The value in the checkpoint that a resume would take, and what it says it skipped."""
    said: list[str] = []
    found = newest(str(run), "digest", said.append)
    state = {"model": {"w": torch.empty(3, 2)}}
    checkpoint.load(found, state)
    return float(state["model"]["w"][0, 0]), said


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda c: (c / "COMMITTED.json").unlink(), "was never finished"),
        (lambda c: (c / "COMMITTED.json").write_text('{"step"'), "was never finished"),
        (lambda c: (c / "__0_0.distcp").unlink(), "is missing"),
        (lambda c: (c / ".metadata").write_bytes(b""), "0 bytes where"),
        (lambda c: (c / "__0_0.distcp").write_bytes(b"x" * 9), "9 bytes where"),
        (lambda c: flip(c / "__0_0.distcp"), "not what was written"),
    ],
)
def test_a_damaged_newest_checkpoint_is_skipped_with_a_sentence(
    alone, tmp_path, harm, sentence
) -> None:
    save(tmp_path, [4, 8])
    assert read(tmp_path) == (8.0, [])
    harm(tmp_path / "checkpoints/step-00000008")
    value, said = read(tmp_path)
    assert value == 4.0
    assert len(said) == 1
    assert said[0].startswith("Skipped checkpoint step-00000008: ")
    assert sentence in said[0]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_nothing_whole_means_nothing_to_resume(alone, tmp_path) -> None:
    said: list[str] = []
    assert newest(str(tmp_path), "digest", said.append) is None
    save(tmp_path, [4])
    shutil.rmtree(tmp_path / "checkpoints/step-00000004/.metadata", ignore_errors=True)
    (tmp_path / "checkpoints/step-00000004/.metadata").unlink()
    assert newest(str(tmp_path), "size", said.append) is None
    assert len(said) == 1


def test_the_marker_names_every_file_with_its_size(alone, tmp_path) -> None:
    save(tmp_path, [1])
    folder = tmp_path / "checkpoints/step-00000001"
    commit = json.loads((folder / "COMMITTED.json").read_text())
    on_disk = {p.name: p.stat().st_size for p in folder.iterdir() if p.name != "COMMITTED.json"}
    assert {n: f["bytes"] for n, f in commit["files"].items()} == on_disk
    assert damage(str(folder), commit, "digest") is None


def test_retention_keeps_the_last_and_the_multiples(alone, tmp_path) -> None:
    save(tmp_path, [1, 2, 3, 4, 5, 6, 7], keep_last=2, keep_every_steps=3)
    assert names(tmp_path) == [f"step-{n:08d}" for n in (3, 6, 7)]


def test_orphans_older_than_the_newest_are_collected_and_others_left(alone, tmp_path) -> None:
    save(tmp_path, [5])
    for name in ("step-00000003", "step-00000009", "notes"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert collect_garbage(str(tmp_path), CheckpointConfig()) == ["step-00000003"]
    assert names(tmp_path) == ["notes", "step-00000005", "step-00000009"]
    drop_after(str(tmp_path), 5)
    assert names(tmp_path) == ["notes", "step-00000005"]


def test_an_old_checkpoint_that_stays_saves_no_other_and_fails_no_write(
    alone, tmp_path, monkeypatch
) -> None:
    save(tmp_path, [1, 2, 3])
    first = tmp_path / "checkpoints/step-00000001"
    monkeypatch.chdir(first)  # fsspec deletes anything but the folder it is in
    writer = save(tmp_path, [4], keep_last=1)
    assert not writer.has_failed
    said = writer.uncleaned()
    assert "could not be deleted, 1 in all, first step-00000001 (Cannot delete" in said
    assert writer.uncleaned() is None
    assert names(tmp_path) == ["step-00000001", "step-00000004"]
    assert read(tmp_path) == (4.0, [])
    monkeypatch.chdir(tmp_path)
    assert save(tmp_path, [5], keep_last=1).uncleaned() is None
    assert names(tmp_path) == ["step-00000005"]


def test_training_goes_on_where_old_checkpoints_cannot_be_deleted(
    alone, small_run, tmp_path, monkeypatch
) -> None:
    kept = CheckpointConfig(interval_steps=1, keep_last=1)
    config = replace(small_run, workers=1, steps=6, checkpoint=kept)
    stuck = Path(config.out) / "checkpoints/step-00000000"
    stuck.mkdir(parents=True)
    monkeypatch.chdir(stuck)
    told = []

    def on_event(name: str, fields: dict) -> None:
        told.append(name)
        if name == "checkpoint.not_cleaned":
            assert "first step-00000000" in fields["reason"]
            monkeypatch.chdir(tmp_path)

    rows = PackRows(open_pack(config.data).split("train"), 0)
    work(config, rows, hooks=Hooks(on_event=on_event))
    assert 1 <= told.count("checkpoint.not_cleaned") < 6
    assert names(Path(config.out)) == ["step-00000006"]


def test_what_an_attempt_that_died_left_under_the_same_step_is_replaced(alone, tmp_path) -> None:
    left = tmp_path / "checkpoints/step-00000004"
    left.mkdir(parents=True)
    (left / "__7_0.distcp").write_bytes(b"old")
    save(tmp_path, [4])
    assert sorted(p.name for p in left.iterdir()) == [".metadata", "COMMITTED.json", "__0_0.distcp"]
    assert read(tmp_path) == (4.0, [])


def test_a_later_change_of_the_state_does_not_reach_the_checkpoint(alone, tmp_path) -> None:
    writer = Checkpoints(str(tmp_path), CheckpointConfig(), "cpu")
    weight = torch.zeros(400_000)
    writer.save({"model": {"w": weight}}, {"step": 1})
    weight += 1
    writer.wait()
    state = {"model": {"w": torch.full((400_000,), 7.0)}}
    checkpoint.load(newest(str(tmp_path), "digest", pytest.fail), state)
    assert not state["model"]["w"].any()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_checkpoint_of_one_rank_leaves_gloo_no_team_of_threads(
    alone, two_threads, tmp_path
) -> None:
    writer = Checkpoints(str(tmp_path), CheckpointConfig(), "cpu")
    state = {"model": {f"layers.{i}.weight": torch.zeros(1) for i in range(2000)}}
    before = set(os.listdir("/proc/self/task"))
    writer.save(state, {"step": 1})
    writer.wait()
    checkpoint.load(newest(str(tmp_path), "digest", pytest.fail), state)
    assert set(os.listdir("/proc/self/task")) <= before


def test_a_write_that_fails_is_told_when_asked(alone, tmp_path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    writer = Checkpoints(str(tmp_path), CheckpointConfig(), "cpu")
    writer.save({"model": {"w": torch.zeros(2)}}, {"step": 1})
    while writer.is_writing:
        time.sleep(0.01)
    assert writer.has_failed
    with pytest.raises(StorageError, match="could not be written"):
        writer.wait()
    assert not writer.has_failed
    assert dist.is_initialized()


def save_with_rank_0_gone(run: str) -> str:
    """Name of the error that the other rank sees, or nothing."""
    checkpoints = Checkpoints(run, CheckpointConfig(), "cpu")
    dist.barrier()  # its own process group is whole on both
    if dist.get_rank() == 0:
        return ""
    checkpoints.save({"x": torch.ones(3)}, {"step": 1})
    try:
        checkpoints.wait()
    except Exception as error:
        return type(error).__name__
    return ""


def test_a_rank_that_is_gone_is_not_told_as_a_fault_of_the_storage(tmp_path) -> None:
    assert on_ranks(2, save_with_rank_0_gone, str(tmp_path / "run"))[1] == "RuntimeError"
    assert not checkpoint.committed(str(tmp_path / "run"))


def wait_for_a_frozen_rank(run: str) -> float:
    """Seconds until this rank gives up on one that does not write; 0 on that one."""
    checkpoints = Checkpoints(run, CheckpointConfig(), "cpu", timeout_s=1.0)
    started_s = time.monotonic()
    if dist.get_rank() == 1:
        time.sleep(5)
        return 0.0
    checkpoints.save({"x": torch.ones(3)}, {"step": 1})
    with pytest.raises(RuntimeError):
        checkpoints.wait()
    return time.monotonic() - started_s


def test_a_write_does_not_wait_for_a_rank_that_hangs(tmp_path) -> None:
    assert 0.5 < on_ranks(2, wait_for_a_frozen_rank, str(tmp_path / "run"))[0] < 4.5
    assert not checkpoint.committed(str(tmp_path / "run"))


def test_the_default_interval_follows_what_a_checkpoint_costs() -> None:
    config = replace(debug(), checkpoint=CheckpointConfig(mtbf_h=2.0))
    clock = CheckpointClock(config, step=0)
    clock.saved(1, stall_s=1.0, flush_s=5.0)
    assert clock.interval_s == pytest.approx((2 * 1.0 * 2 * 3600) ** 0.5)
    clock.saved(2, stall_s=0.0, flush_s=90.0)
    assert clock.interval_s == 90.0  # the write must have ended first


def test_checkpoints_that_are_kept_are_written_whatever_the_interval() -> None:
    """By the clock one would fall on a multiple of M by chance only, and none would be kept."""
    config = replace(debug(), checkpoint=CheckpointConfig(interval_s=1e9, keep_every_steps=4))
    clock = CheckpointClock(config, step=0)
    assert [n for n in range(1, 10) if clock.wants(n, now_s=0.0, is_writing=True)] == [4, 8]


def test_steps_set_the_interval_where_asked_to() -> None:
    config = replace(debug(), checkpoint=CheckpointConfig(interval_steps=3))
    clock = CheckpointClock(config, step=0)
    assert [n for n in range(1, 10) if clock.wants(n, now_s=0.0, is_writing=False)] == [3, 6, 9]


def test_names_of_checkpoints_are_steps_and_back():
    assert checkpoint_name(120) == "step-00000120"
    assert checkpoint_step(checkpoint_name(120)) == 120
    assert checkpoint_step("step-120") is checkpoint_step("step-00000120.tmp") is None


def test_the_newest_whole_checkpoint_says_which_step_and_when(tmp_path) -> None:
    run = str(tmp_path)
    assert (checkpoint.committed_step(run), checkpoint.saved_s(run)) == (0, None)
    before_s = time.time()
    for step in (10, 20):
        storage.commit(storage.join(checkpoint.folder(run), checkpoint_name(step)), {"step": step})
    (tmp_path / "checkpoints" / checkpoint_name(30)).mkdir()
    saved_s = checkpoint.saved_s(run)
    assert checkpoint.committed_step(run) == 20
    assert saved_s is not None and before_s - 1 < saved_s < time.time() + 1
