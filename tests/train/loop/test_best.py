"""The best checkpoint is kept and can be exported; a run that gets no better ends."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, InputError
from apps.common.files.schema import LINEAGE_NAME
from apps.common.packs import open_pack
from apps.train.batches.micro_batch import PackRows
from apps.train.checkpoint import checkpoint
from apps.train.config import CheckpointConfig, ExportConfig, MetricsConfig, RunConfig
from apps.train.export import run_export
from apps.train.loop.loop import Hooks
from apps.train.loop.progress import Progress
from apps.train.loop.record import read_metrics
from apps.train.loop.worker import process_group, work
from apps.train.preflight import prepare


def validating(config: RunConfig, **metrics: object) -> RunConfig:
    """Every step is validated; a rate so high that the loss soon gets worse."""
    return replace(
        config, steps=12, workers=1, optim=replace(config.optim, lr=1.0, schedule="constant"),
        checkpoint=CheckpointConfig(interval_steps=5, keep_last=1, keep_best=True),
        metrics=MetricsConfig(val_every_steps=1, val_rows=3, **metrics),
    )  # fmt: skip


def train(config: RunConfig) -> list[tuple[str, dict]]:
    """What a run tells besides its steps."""
    prepared, told = prepare(config), []
    info = prepared.pack.info
    rows, val = (PackRows(open_pack(config.data).split(n), info.pad_id) for n in ("train", "val"))
    with process_group():
        hooks = Hooks(on_event=lambda name, fields: told.append((name, fields)))
        work(prepared.config, rows, val, commit=prepared.commit, hooks=hooks)
    return told


def best_of(run: str) -> tuple[float, int]:
    return min((record["val_loss"], record["step"]) for record in read_metrics(run))


def test_the_best_checkpoint_stays_and_is_exported(small_run: RunConfig, tmp_path: Path) -> None:
    config = validating(small_run)
    train(config)
    _, step = best_of(config.out)
    assert 0 < step < 12, "or this test shows nothing"
    assert [c.step for c in checkpoint.committed(config.out)] == [12, step]
    out = tmp_path / "model"
    run_export(ExportConfig(run=config.out, out=str(out), best=True), Reporter("json"))
    assert json.loads((out / LINEAGE_NAME).read_text())["checkpoint"]["step"] == step


def test_a_run_without_patience_left_ends_and_stays_ended(small_run: RunConfig) -> None:
    config = validating(small_run, patience=2)
    told = train(config)
    loss, step = best_of(config.out)
    records = read_metrics(config.out)
    assert len(records) == step + 2 < 12
    assert told[-1] == ("stopped.early", {"best_step": step, "best_val_loss": loss})
    assert train(config)[-1] == told[-1], "the same command says so again"
    assert len(read_metrics(config.out)) == len(records)


def test_losses_over_other_rows_are_not_compared(small_run: RunConfig) -> None:
    """Resumed with fewer validation rows, whose losses may be lower or higher for that alone."""
    config = validating(small_run, patience=2)
    train(config)
    num_steps = len(read_metrics(config.out))
    fewer = replace(config, metrics=replace(config.metrics, val_rows=1))
    assert train(fewer)[-1][0] == "stopped.early"
    assert len(read_metrics(config.out)) >= num_steps + 1 + 2, (
        "the first is the best, then patience"
    )
    (newest, *_) = checkpoint.committed(config.out)
    assert newest.commit["best_step"] > num_steps


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # of MLflow's own tables
def test_a_run_that_ends_early_is_finished_to_its_trackers(small_run: RunConfig) -> None:
    config = replace(validating(small_run, patience=2), log=("mlflow",))
    assert train(config)[-1][0] == "stopped.early"
    client = MlflowClient(tracking_uri=f"sqlite:///{config.out}/mlflow.db")
    experiment = client.get_experiment_by_name("cria")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    progress = Progress()
    assert not progress.validated(float("nan")) and progress.validated(2.0)
    assert not progress.validated(float("nan"))
    assert progress.validated(1.0) and (progress.best_val_loss, progress.num_worse) == (1.0, 0)


def test_what_judges_by_validation_needs_one(small_run: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"judge by the validation loss; give --metrics\.val-ev"):
        replace(small_run, metrics=MetricsConfig(patience=2))
    train(replace(small_run, steps=2, workers=1))
    export = ExportConfig(run=small_run.out, out=str(tmp_path / "model"), best=True)
    with pytest.raises(InputError, match=r"knows no best checkpoint; train with --chec"):
        run_export(export, Reporter("json"))
