import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from apps.common.packs import open_pack
from apps.train.batches.micro_batch import PackRows
from apps.train.checkpoint.fence import Fence
from apps.train.config import FaultConfig
from apps.train.loop.loop import SPIKE_WINDOW, Hooks, Loop, TrainingStopped
from apps.train.loop.metrics import MetricsLog
from apps.train.loop.record import read_metrics
from apps.train.loop.trackers import Trackers
from apps.train.loop.worker import (
    configure_torch,
    make_meter,
    make_strategy,
    process_group,
    run_order,
    work,
)
from apps.train.model.shape import from_config
from apps.train.plan import adapter_parameters
from tests.train.ranks import board, rows_of


class Sabotaged:
    """A strategy whose loss is multiplied in one step."""

    def __init__(self, inner, step: int, factor: float) -> None:
        self._inner, self._step, self._factor, self._seen = inner, step, factor, 0
        self.discarded = 0

    def loss(self, batch, scale):
        self._seen += 1
        return self._inner.loss(batch, scale) * (self._factor if self._seen == self._step else 1)

    def discard(self):
        self.discarded += 1
        self._inner.discard()

    def __getattr__(self, name):
        return getattr(self._inner, name)


def run_with(config, step: int, factor: float) -> tuple[list[dict], list[str], Sabotaged]:
    records, said = [], []
    with process_group():
        configure_torch(config)
        rows = rows_of(config)
        inner = make_strategy(config, torch.device("cpu"), rows.row_tokens)
        strategy = Sabotaged(inner, step, factor)
        loop = Loop(
            config=config,
            order=run_order(config, len(rows)),
            train_rows=rows,
            val_rows=None,
            strategy=strategy,
            meter=make_meter(config, inner, rows.row_tokens),
            hooks=Hooks(
                on_step=records.append, on_event=lambda name, fields: said.append(fields["reason"])
            ),
        )
        loop.run()
    return records, said, strategy


@pytest.fixture
def config(small_run):
    return replace(small_run, workers=1, micro_batch_rows=6, steps=5)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_with_a_sentence(config, factor) -> None:
    with pytest.raises(TrainingStopped, match=r"The loss of step 3 is (nan|inf); training stopped"):
        run_with(config, 3, factor)


def test_a_base_that_computes_no_numbers_is_not_blamed_on_the_learning_rate(config) -> None:
    with pytest.raises(TrainingStopped, match=r"No step has changed the base yet: look at its w"):
        run_with(config, 1, math.nan)
    with pytest.raises(TrainingStopped, match=r"saved yet\. Lower --optim\.lr, or"):
        run_with(config, 2, math.nan)


def test_or_its_step_is_left_out(config) -> None:
    tolerant = replace(config, faults=FaultConfig(on_nan="skip"))
    records, said, strategy = run_with(tolerant, 3, math.nan)
    assert strategy.discarded == 1
    assert said == ["The loss of step 3 is nan; its update was left out."]
    assert [math.isfinite(r["loss"]) for r in records] == [True, True, False, True, True]


def test_a_gradient_that_overflows_leaves_the_weights_alone(config) -> None:
    tolerant = replace(config, faults=FaultConfig(on_nan="skip"))
    records, said, _ = run_with(tolerant, 3, 3e38)
    assert len(said) == 1
    assert "step 3" in said[0]
    assert all(math.isfinite(r["loss"]) for r in records[3:])


def fail(name: str, fields: object) -> None:
    pytest.fail(f"{name}: {fields}")


@pytest.mark.parametrize(
    ("factor", "reason", "written"),
    [(math.nan, "loss", "NaN"), (-math.inf, "loss", "-Infinity"), (3e37, "gradient", None)],
)
def test_a_step_that_was_left_out_is_in_the_metrics_with_its_reason(
    config, factor, reason, written
) -> None:
    tolerant = replace(config, faults=FaultConfig(on_nan="skip"))
    records, _, _ = run_with(tolerant, 3, factor)
    log = MetricsLog(Fence(config.out), resumed_step=0)
    shown = Trackers(replace(config, log=("tensorboard",)), 0, fail)
    for record in records:
        log.write(record)
        shown.write(record)
    log.close()
    shown.close()
    assert [r.get("skipped") for r in read_metrics(config.out)] == [None, None, reason, None, None]
    lines = Path(config.out, "metrics.jsonl").read_text().splitlines()
    third = json.loads(lines[2], parse_constant=pytest.fail)
    assert third["loss"] == (written or records[2]["loss"])
    assert third["grad_norm"] == ("NaN" if written else "Infinity")
    read = read_metrics(config.out)[2]
    assert read == pytest.approx(records[2], nan_ok=True)
    assert board(f"{config.out}/tensorboard")["loss"].keys() == {1, 2, 3, 4, 5}


def test_a_spike_is_left_out_once_there_is_a_history(config) -> None:
    steps = SPIKE_WINDOW + 3
    careful = replace(config, steps=steps, faults=FaultConfig(on_spike="skip", spike_factor=3.0))
    records, said, strategy = run_with(careful, SPIKE_WINDOW + 2, 50.0)
    assert [r["step"] for r in records if r.get("skipped") == "spike"] == [SPIKE_WINDOW + 2]
    assert strategy.discarded == 1
    assert "the median before it" in said[0]
    _, said, _ = run_with(replace(careful, steps=5), 3, 50.0)
    assert said == []


def test_no_validation_rows_means_no_validation(config) -> None:
    silent = replace(config, metrics=replace(config.metrics, val_rows=0, val_every_steps=2))
    pack = open_pack(config.data)
    with process_group():
        work(silent, PackRows(pack.split("train"), 0), PackRows(pack.split("val"), 0))
    assert ["val_loss" in record for record in read_metrics(config.out)] == [False] * 5


def test_the_last_validation_is_counted_and_paid(config, monkeypatch) -> None:
    validate = Loop._validate

    def slowly(loop: Loop) -> float:
        time.sleep(0.5)
        return validate(loop)

    monkeypatch.setattr(Loop, "_validate", slowly)
    pack = open_pack(config.data)
    with process_group():
        work(config, PackRows(pack.split("train"), 0), PackRows(pack.split("val"), 0))
    *_, before, last = read_metrics(config.out)
    assert "val_loss" in last and last["seconds"] - before["seconds"] >= 0.5


def test_mfu_counts_no_gradients_of_frozen_weights(config) -> None:
    measured = replace(config, metrics=replace(config.metrics, peak_tflops=1.0), steps=1)
    lora = replace(measured, adapter="lora", out=f"{config.out}-lora")
    rows = rows_of(config)
    flops = []
    with process_group():
        for run in (measured, lora):
            work(run, rows)
            (record,) = read_metrics(run.out)
            flops.append(record["mfu"] * 1e12 / record["tokens_per_s"])
            flops.append(record["mfu_packed"] * 1e12 / record["tokens_per_s"])
    whole, packed, lora_whole, lora_packed = flops
    shape = from_config(json.loads(Path(config.base, "config.json").read_text()))
    saved = 2 * shape.num_parameters - 6 * adapter_parameters(lora, shape)
    assert (whole - lora_whole, packed - lora_packed) == pytest.approx((saved, saved))


def test_metrics_say_what_a_step_did(config) -> None:
    priced = replace(config.metrics, usd_per_hour=36.0, peak_tflops=1.0, val_every_steps=2)
    measured = replace(config, metrics=priced, log=("tensorboard",))
    pack = open_pack(config.data)
    with process_group():
        work(measured, PackRows(pack.split("train"), 0), PackRows(pack.split("val"), 0))
    records = read_metrics(config.out)
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5]
    assert [r["step"] for r in records if "val_loss" in r] == [2, 4, 5]
    last = records[-1]
    assert last["usd"] == pytest.approx(last["seconds"] / 100)
    assert last["usd_to_go"] == 0
    assert 0 < last["mfu_packed"] < last["mfu"] < 1
    assert last["tokens"] == sum(round(r["tokens_per_s"] * r["step_s"]) for r in records)
    assert last["checkpoint_s"] > 0
    written = board(f"{config.out}/tensorboard")
    assert written.keys() == {name for record in records for name in record} - {"step"}
    for name, values in written.items():
        told = {r["step"]: r[name] for r in records if name in r}
        assert values.keys() == told.keys()
        assert values == pytest.approx(told, rel=1e-6)  # event files hold float32
