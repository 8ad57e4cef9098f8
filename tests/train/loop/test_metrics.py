"""The file of a run's steps, across restarts."""

import json
import math
from pathlib import Path

import pytest
import torch

from apps.common.files import storage
from apps.train.checkpoint.fence import Fence
from apps.train.config import MetricsConfig
from apps.train.loop.metrics import Meter, MetricsLog, StepResult
from apps.train.loop.progress import Progress
from apps.train.loop.record import read_metrics, spent_s
from apps.train.model import flops, shape


@pytest.fixture(params=["disk", "bucket"])
def run(request, tmp_path) -> str:
    """A run of seven steps of ten seconds."""
    uri = str(tmp_path) if request.param == "disk" else f"memory://{tmp_path.name}"
    lines = [json.dumps({"step": n, "seconds": 10.0 * n}) for n in range(1, 8)]
    torn = '\n{"step": 8, "sec'
    storage.write_atomic(f"{uri}/metrics.jsonl", ("\n".join(lines) + torn).encode())
    return uri


def steps(run: str) -> list[int]:
    return [record["step"] for record in read_metrics(run)]


def test_steps_taken_again_replace_the_old(run) -> None:
    log = MetricsLog(Fence(run), resumed_step=4)
    for step in (5, 6):
        log.write({"step": step, "seconds": 70.0 + step})
    log.close()
    assert steps(run) == [1, 2, 3, 4, 5, 6]
    assert len(storage.read_bytes(f"{run}/metrics.jsonl").splitlines()) == 6


def test_an_attempt_that_dies_before_its_first_step_loses_no_seconds(run) -> None:
    MetricsLog(Fence(run), resumed_step=4)
    assert spent_s(read_metrics(run)) == 70.0


def test_a_command_that_lost_the_run_before_its_first_step_adds_none(run) -> None:
    log = MetricsLog(Fence(run, "ours", 1), resumed_step=4)
    held = {"token": "theirs", "host": "node-9", "number": 2, "started_s": 0.0}
    storage.write_json(f"{run}/fence.json", held)
    theirs = storage.read_bytes(f"{run}/metrics.jsonl")
    log.write({"step": 5, "seconds": 75.0})
    log.close()
    assert storage.read_bytes(f"{run}/metrics.jsonl") == theirs


def test_a_line_that_a_full_disk_cut_within_a_character_is_left_out(run) -> None:
    """Answers are in it, of any language; after it the run must go on."""
    whole = storage.read_bytes(f"{run}/metrics.jsonl").rpartition(b"\n")[0]
    line = json.dumps({"step": 8, "samples": [{"answer": "你好"}]}, ensure_ascii=False).encode()
    storage.write_atomic(f"{run}/metrics.jsonl", whole + b"\n" + line[:-6])
    assert steps(run) == [1, 2, 3, 4, 5, 6, 7]


def test_a_loss_that_is_no_number_is_kept_by_a_restart(run) -> None:
    for step, loss in ((8, math.nan), (9, -math.inf), (10, 0.5)):
        log = MetricsLog(Fence(run), resumed_step=step - 1)
        log.write({"step": step, "seconds": 80.0, "loss": loss, "skipped": "loss"})
        log.close()
    assert [str(record["loss"]) for record in read_metrics(run)[7:]] == ["nan", "-inf", "0.5"]
    written = storage.read_bytes(f"{run}/metrics.jsonl").splitlines()
    assert [float(json.loads(line)["loss"]) for line in written[8:]] == [-math.inf, 0.5]


def test_a_disk_s_records_are_there_at_once(tmp_path: Path) -> None:
    log = MetricsLog(Fence(str(tmp_path)), resumed_step=0)
    log.write({"step": 1, "seconds": 1.0})
    assert steps(str(tmp_path)) == [1]
    log.close()


@pytest.mark.parametrize("top_layers", [0, 1])
def test_the_mfu_of_a_step_counts_the_layers_that_are_trained(top_layers: int) -> None:
    model = shape.load("debug")
    meter = Meter(
        MetricsConfig(), model, row_tokens=256, world_size=2, device=torch.device("cpu"),
        peak_flops=1e12, trained_layers=top_layers,
    )  # fmt: skip
    step = StepResult(
        loss=1.0, lr=1e-3, grad_norm=1.0, skipped=None, step_s=0.5, tokens=1000,
        squared_tokens=100_000, supervised_tokens=600, val_loss=None,
    )  # fmt: skip
    record = meter.record(Progress(step=1), 2, step)
    nominal = flops.nominal_flops_per_token(model, 256, 0, top_layers)
    packed = flops.packed_flops_per_token(model, 1000, 100_000, 0, top_layers)
    assert record["mfu"] == pytest.approx(2000 * nominal / 2e12)
    assert record["mfu_packed"] == pytest.approx(2000 * packed / 2e12)
