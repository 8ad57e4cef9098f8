import time
from dataclasses import replace

import pytest
import torch

from apps.common.errors import InputError
from apps.common.files import storage
from apps.common.packs import open_pack
from apps.train.batches.micro_batch import PackRows
from apps.train.checkpoint import checkpoint
from apps.train.config import RunConfig
from apps.train.loop.loop import Hooks, TrainingStopped
from apps.train.loop.record import read_metrics
from apps.train.loop.worker import process_group, rank_device, warn_of_slow_precision, work


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_cpu_without_bf16_is_said_to_be_slow_at_it(monkeypatch, precision, has_bf16) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    said = []
    hooks = Hooks(on_event=lambda name, fields: said.append((name, fields["advice"])))
    config = RunConfig(base="", data="", out="", precision=precision)
    with process_group():
        warn_of_slow_precision(config, torch.device("cpu"), hooks)
    is_slow = precision == "bf16" and not has_bf16
    assert [name for name, _ in said] == ["precision.slow"] * is_slow
    assert all("--precision fp32" in advice for _, advice in said)


def diverge(config: RunConfig) -> None:
    """Train on one rank until the loss is no number, in the step after the first update."""
    steep = replace(config, workers=1, optim=replace(config.optim, lr=1e30, warmup_fraction=0.0))
    with process_group(), pytest.raises(TrainingStopped, match="step 2 is"):
        work(steep, PackRows(open_pack(config.data).split("train"), 0))


def test_a_run_that_leaves_the_rails_finishes_the_checkpoint_it_is_writing(
    small_run, monkeypatch
) -> None:
    commit = storage.commit

    def slow_commit(uri: str, payload: dict) -> None:
        time.sleep(0.5)
        commit(uri, payload)

    monkeypatch.setattr(storage, "commit", slow_commit)
    every = replace(small_run.checkpoint, interval_steps=1)
    diverge(replace(small_run, checkpoint=every))
    assert [found.step for found in checkpoint.committed(small_run.out)] == [1]


def test_a_run_that_leaves_the_rails_leaves_its_last_steps_in_a_bucket(small_run, tmp_path) -> None:
    """Where records are written now and then only, those before the fault matter most."""
    out = f"memory://{tmp_path.name}"
    later = replace(small_run.checkpoint, interval_steps=100)
    diverge(replace(small_run, out=out, checkpoint=later))
    assert [record["step"] for record in read_metrics(out)] == [1]


def test_no_cpu_stands_in_for_a_gpu_that_torch_does_not_find(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = {"base": "", "data": "", "out": ""}
    with pytest.raises(InputError, match=r"torch finds none on .*, or train with --device cpu"):
        rank_device(RunConfig(**settings, device="cuda"))
    for device in ("auto", "cpu"):
        assert rank_device(RunConfig(**settings, device=device)).type == "cpu"
