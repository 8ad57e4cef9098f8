"""Resume, in processes that are forked and end; the same with SIGKILL and Ray is in test_chaos*."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from apps.common.errors import ConfigError, StorageError
from apps.train import preflight
from apps.train.batches.micro_batch import NO_ROW
from apps.train.checkpoint import checkpoint
from apps.train.config import LoraConfig, RunConfig
from apps.train.export import read_weights
from apps.train.loop.record import read_metrics
from apps.train.loop.worker import process_group, run_order, work
from apps.train.presets import debug
from tests.train.ranks import board, on_ranks, rows_of, train

CURVE = ("step", "loss", "lr", "grad_norm", "tokens", "supervised_tokens")


def curve(config: RunConfig) -> list[tuple]:
    return [tuple(record[name] for name in CURVE) for record in read_metrics(config.out)]


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    found = checkpoint.newest(config.out, "digest", pytest.fail)
    assert found is not None
    assert found.step == config.steps
    return read_weights(found)


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [n for n in a if not torch.equal(a[n], b[n])] == []


@pytest.fixture(scope="module")
def undisturbed(small_base, small_pack, tmp_path_factory) -> RunConfig:
    from tests.train.conftest import small_config

    config = small_config(small_base, small_pack, tmp_path_factory.mktemp("straight") / "run")
    on_ranks(2, train, config)
    return config


@pytest.mark.parametrize("kill_after", [1, 4, 5])
def test_resume_is_bit_identical(undisturbed, tmp_path, kill_after) -> None:
    """Killed before the first checkpoint, right at one (an epoch ends near it), and between two."""
    config = replace(undisturbed, out=str(tmp_path / "run"))
    first = on_ranks(2, train, config, kill_after)[0]
    assert first[-1]["step"] == kill_after
    second = on_ranks(2, train, config)[0]
    assert second[0]["step"] <= kill_after + 1
    assert second[-1]["step"] == config.steps
    assert second[0]["seconds"] > first[-1]["seconds"]  # steps taken twice are paid twice
    again = [record for record in first if record["step"] >= second[0]["step"]]
    before_s = first[-1 - len(again)]["seconds"] if len(again) < len(first) else 0.0
    lost_s = second[-1].get("lost_s", 0.0)
    assert lost_s <= first[-1]["seconds"] - before_s
    assert lost_s >= sum(record["step_s"] for record in again) * 0.9
    assert curve(config) == curve(undisturbed)
    assert_same_bits(weights(config), weights(undisturbed))


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": "lora", "lora": LoraConfig(rank=4, dropout=0.2)},
        {"optim": replace(debug().optim, state="int8")},
        {"precision": "bf16", "wrap": "layer", "reshard": "step"},
        {"precision": "bf16", "wrap": "layer", "top_layers": 1, "keep_base": 1.0},
        pytest.param({"optim": replace(debug().optim, state="bf16")}, marks=pytest.mark.slow),
        pytest.param({"cpu_offload": True, "wrap": "layer"}, marks=pytest.mark.slow),
    ],
)
def test_so_is_that_of_every_kind_of_adapter_state_precision_and_sharding(
    undisturbed, tmp_path, changes
) -> None:
    calm = replace(undisturbed, out=str(tmp_path / "calm"), steps=4, **changes)
    cut = replace(calm, out=str(tmp_path / "cut"))
    on_ranks(2, train, calm)
    on_ranks(2, train, cut, None, None, 2)
    assert on_ranks(2, train, cut)[0][0]["step"] == 3
    assert curve(cut) == curve(calm)
    assert_same_bits(weights(cut), weights(calm))


@pytest.mark.parametrize("stop_after", [2, 5])
def test_a_stopped_run_has_saved_its_last_step_and_goes_on(
    undisturbed, tmp_path, stop_after
) -> None:
    """Where a checkpoint was due anyway, and between two."""
    config = replace(undisturbed, out=str(tmp_path / "run"), log=("tensorboard",))
    first = on_ranks(2, train, config, None, None, stop_after)[0]
    assert first[-1]["step"] == stop_after == checkpoint.committed(config.out)[0].step
    assert board(f"{config.out}/tensorboard")["loss"].keys() == set(range(1, stop_after + 1))
    assert on_ranks(2, train, config)[0][0]["step"] == stop_after + 1
    assert curve(config) == curve(undisturbed)
    assert board(f"{config.out}/tensorboard")["loss"].keys() == set(range(1, config.steps + 1))
    assert_same_bits(weights(config), weights(undisturbed))


def test_a_resume_where_an_epoch_and_a_checkpoint_end_takes_the_next_epoch(
    undisturbed, tmp_path
) -> None:
    """22 rows are exactly two steps of 11, and every second step has a checkpoint."""
    keep = replace(undisturbed.checkpoint, keep_last=9)
    calm = replace(undisturbed, global_batch_rows=11, steps=6, checkpoint=keep)
    calm = replace(calm, out=str(tmp_path / "calm"))
    on_ranks(2, train, calm)
    config = replace(calm, out=str(tmp_path / "cut"))
    shutil.copytree(calm.out, config.out)
    checkpoint.drop_after(config.out, 2)
    records = on_ranks(2, train, config)[0]
    assert [r["step"] for r in records] == [3, 4, 5, 6]
    assert curve(config) == curve(calm)
    assert_same_bits(weights(config), weights(calm))


def test_two_kills_and_a_truncated_checkpoint_change_nothing(undisturbed, tmp_path) -> None:
    config = replace(undisturbed, out=str(tmp_path / "run"))
    on_ranks(2, train, config, 5)
    on_ranks(2, train, config, 7)
    newest = checkpoint.committed(config.out)[0]
    shard = next(n for n in newest.commit["files"] if n.endswith(".distcp"))
    with open(f"{newest.uri}/{shard}", "r+b") as handle:
        handle.truncate(100)
    on_ranks(2, train, config)
    assert curve(config) == curve(undisturbed)
    assert_same_bits(weights(config), weights(undisturbed))


@pytest.mark.parametrize(
    "ranks", [(2, 1), (2, 1, 2), pytest.param((8, 4, 8), marks=pytest.mark.slow)]
)
def test_another_number_of_ranks_takes_over_state_and_batches(undisturbed, tmp_path, ranks) -> None:
    config = replace(undisturbed, out=str(tmp_path / "run"))
    for attempt, world_size in enumerate(ranks):
        is_last = attempt == len(ranks) - 1
        records = on_ranks(world_size, train, config, None if is_last else 3 + 2 * attempt)[0]
        assert {r["world_size"] for r in records} == {world_size}
    ours, theirs = curve(config), curve(undisturbed)
    assert [r[0] for r in ours] == [r[0] for r in theirs]
    assert [r[4:] for r in ours] == [r[4:] for r in theirs]  # tokens: the same rows
    assert [r[1] for r in ours] == pytest.approx([r[1] for r in theirs], rel=1e-4)
    before, after = weights(undisturbed), weights(config)
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-3, rtol=1e-3)


def test_a_finished_run_is_left_alone(undisturbed) -> None:
    before = curve(undisturbed)
    assert on_ranks(2, train, undisturbed) == [[], []]
    assert curve(undisturbed) == before


def test_the_runs_used_here_cross_an_epoch_and_end_unevenly(undisturbed) -> None:
    order = run_order(undisturbed, 22)
    assert order.global_batch_rows * 4 > 22  # the second epoch begins in step 4
    uneven = run_order(replace(undisturbed, steps=None, epochs=1.0), 22)
    assert list(uneven.global_rows(uneven.num_steps - 1)).count(NO_ROW) == 2


@pytest.mark.parametrize("micro_rows", [6, 1])
def test_accumulation_does_not_change_the_mathematics(undisturbed, tmp_path, micro_rows) -> None:
    config = replace(undisturbed, out=str(tmp_path / "run"), micro_batch_rows=micro_rows)
    on_ranks(1, train, config)
    ours, theirs = curve(config), curve(undisturbed)
    assert [r[1] for r in ours] == pytest.approx([r[1] for r in theirs], rel=1e-5)
    assert [r[3] for r in ours] == pytest.approx([r[3] for r in theirs], rel=1e-4)


def train_on_a_full_disk(config: RunConfig) -> str:
    """What is said when the kernel lets no file grow beyond a few bytes of a checkpoint's shard."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, 8 << 10))
    try:
        train(config)
    except StorageError as error:
        return error.sentence
    return "nothing"


def test_allow_change_goes_on_with_the_new_settings(undisturbed, tmp_path) -> None:
    config = replace(undisturbed, out=str(tmp_path / "run"))
    on_ranks(2, train, config, 5)
    slower = replace(config, allow_change=True, optim=replace(config.optim, lr=1e-4))
    records = on_ranks(2, train, slower)[0]
    assert records[0]["step"] > 1
    assert max(r["lr"] for r in records) <= 1e-4
    assert [r[4:] for r in curve(slower)] == [r[4:] for r in curve(undisturbed)]


def test_a_full_disk_is_a_sentence_and_the_last_whole_checkpoint_stays(
    undisturbed, tmp_path
) -> None:
    config = replace(undisturbed, out=str(tmp_path / "run"))
    on_ranks(2, train, config, 5)
    whole = [found.step for found in checkpoint.committed(config.out)]
    for said in on_ranks(2, train_on_a_full_disk, config):
        assert "A checkpoint could not be written" in said
        assert "free some space and run the same command again" in said
    assert [found.step for found in checkpoint.committed(config.out)] == whole
    assert 2 in whole
    on_ranks(2, train, config)
    assert curve(config) == curve(undisturbed)
    assert_same_bits(weights(config), weights(undisturbed))


@pytest.fixture
def small_disk(tmp_path) -> Iterator[str]:
    """A file system of its own with room for a few checkpoints of the small model."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield str(folder)
    subprocess.run(["umount", str(folder)], check=True)


def sentence_of(config: RunConfig) -> str:
    try:
        train(config)
    except StorageError as error:
        return error.sentence
    return "nothing"


def test_a_disk_that_fills_up_is_told_at_the_next_step_and_mended_by_space(
    undisturbed, small_disk, tmp_path
) -> None:
    """Every checkpoint is kept, so the disk fills by itself; then the run moves to a larger one."""
    config = replace(undisturbed, out=f"{small_disk}/run", steps=40)
    config = replace(config, checkpoint=replace(config.checkpoint, keep_last=40))
    for said in on_ranks(2, sentence_of, config):
        assert "could not be written" in said
        assert "free some space and run the same command again" in said
    reached = read_metrics(config.out)[-1]["step"]
    newest = checkpoint.newest(config.out, "digest", lambda sentence: None)
    assert newest is not None
    assert reached - 4 <= newest.step <= reached
    larger = replace(config, out=str(tmp_path / "larger"))
    shutil.copytree(config.out, larger.out)
    assert on_ranks(2, train, larger)[0][0]["step"] == newest.step + 1
    assert read_metrics(larger.out)[-1]["step"] == 40


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"top_layers": 2}, {"top_layers": 1}, "top_layers 2, now it is 1"),
        ({}, {"top_layers": 1}, "top_layers 0, now it is 1"),
        ({}, {"adapter": "lora"}, "adapter none, now it is lora"),
        (
            {"adapter": "lora"},
            {"adapter": "lora", "lora": LoraConfig(targets=("q_proj",))},
            r"lora.targets \[\], now it is \['q_proj'\]",
        ),
        ({}, {"strategy": "deepspeed"}, "strategy fsdp, now it is deepspeed"),
    ],
)
def test_allow_change_leaves_no_trained_weight_behind(
    small_run, before, now, said, monkeypatch
) -> None:
    """Those that are trained no more would be the base's again."""
    monkeypatch.setattr(preflight, "_check_strategy", lambda config, model_type: None)
    config = replace(small_run, workers=1, steps=2, **before)
    prepared = preflight.prepare(config)
    with process_group():
        work(prepared.config, rows_of(config), commit=prepared.commit)
    changed = replace(small_run, workers=1, steps=2, allow_change=True, **now)
    with pytest.raises(ConfigError, match=f"{said}: these train other weights"):
        preflight.prepare(changed)
    slower = replace(config, allow_change=True, optim=replace(config.optim, lr=1e-4))
    assert preflight.prepare(slower).done_step == 2
