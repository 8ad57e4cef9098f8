"""TensorBoard, Weights & Biases and MLflow get what metrics.jsonl says: the real ones, offline."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
from mlflow.tracking import MlflowClient
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

from apps.common.errors import InputError
from apps.common.files import storage
from apps.common.packs import open_pack
from apps.train.batches.micro_batch import PackRows
from apps.train.config import MetricsConfig, RunConfig
from apps.train.loop.loop import Hooks
from apps.train.loop.record import StepRecord, read_metrics
from apps.train.loop.worker import process_group, work
from apps.train.preflight import prepare
from tests.train.ranks import board

pytestmark = pytest.mark.filterwarnings(
    "ignore::sqlalchemy.exc.SADeprecationWarning"  # of MLflow's own tables
)
PROMPTS = ("Paris is", "2+2 makes")


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    yield
    wandb.teardown()  # it keeps the first settings of its process


def tracked(config: RunConfig, *log: str) -> RunConfig:
    metrics = MetricsConfig(
        sample_every_steps=2, sample_prompts=PROMPTS, sample_tokens=3, usd_per_hour=36.0
    )
    return replace(config, steps=4, workers=1, metrics=metrics, log=log)


def train(config: RunConfig, stop_after: int | None = None) -> list[tuple[str, dict]]:
    """What the run tells; ended as by a signal where `stop_after` says so."""
    prepared, told, steps = prepare(config), [], list[int]()
    hooks = Hooks(
        on_event=lambda name, fields: told.append((name, dict(fields))),
        on_step=lambda record: steps.append(record["step"]),
        stopped=lambda: stop_after is not None and len(steps) + 1 >= stop_after,
    )
    rows = PackRows(open_pack(config.data).split("train"), prepared.pack.info.pad_id)
    with process_group():
        work(prepared.config, rows, commit=prepared.commit, hooks=hooks)
    return told


def in_two_attempts(config: RunConfig) -> list[StepRecord]:
    train(config, stop_after=2)
    told = train(config)
    assert not [fields for name, fields in told if name == "tracker.failed"]
    assert ("resumed", 2) in [(name, fields.get("step")) for name, fields in told]
    return read_metrics(config.out)


def test_mlflow_has_one_run_with_settings_figures_and_answers(small_run: RunConfig) -> None:
    config = tracked(small_run, "mlflow")
    records = in_two_attempts(config)
    client = MlflowClient(tracking_uri=f"sqlite:///{config.out}/mlflow.db")
    experiment = client.get_experiment_by_name("cria")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_id == storage.read_json(f"{config.out}/tracking.json")["mlflow"]
    assert run.data.params["optim.lr"] == str(config.optim.lr)
    losses = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "loss")}
    assert losses == {r["step"]: r["loss"] for r in records}
    assert run.data.metrics["usd"] == records[-1]["usd"] > 0
    (text,) = Path(config.out, "mlflow").rglob("step-00000002.md")
    assert all(sample["answer"] in text.read_text() for sample in records[1]["samples"])


def kept_by_wandb(file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Steps and values of an offline run's own file."""
    store = DataStore()
    store.open_for_scan(str(file))
    with store._fp:  # DataStore.close writes
        while (data := store.scan_data()) is not None:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("history"):
                items = record.history.item
                found = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                yield record.history.step.num, found


def test_wandb_has_one_run_id_over_attempts_and_every_step(small_run: RunConfig) -> None:
    config = tracked(small_run, "wandb")
    records = in_two_attempts(config)
    run_id = storage.read_json(f"{config.out}/tracking.json")["wandb"]
    files = sorted(Path(config.out, "wandb").rglob("*.wandb"))
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}
    kept = [pair for file in files for pair in kept_by_wandb(file)]
    assert {step: row["loss"] for step, row in kept} == {r["step"]: r["loss"] for r in records}
    assert {step for step, row in kept if any("samples" in key for key in row)} == {2, 4}
    assert kept[-1][1]["usd"] == records[-1]["usd"] > 0


def test_tensorboard_has_the_figures_beside_the_others(small_run: RunConfig) -> None:
    config = tracked(small_run, "tensorboard", "mlflow")
    records = in_two_attempts(config)
    losses = board(f"{config.out}/tensorboard")["loss"]
    assert losses == pytest.approx({r["step"]: r["loss"] for r in records})


def test_a_tracker_that_fails_is_told_once_and_training_goes_on(
    small_run: RunConfig, monkeypatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = tracked(small_run, "mlflow")
    told = [fields for name, fields in train(config) if name == "tracker.failed"]
    assert [fields["tracker"] for fields in told] == ["mlflow"]
    assert len(read_metrics(config.out)) == 4


def test_wandb_without_a_key_is_refused_before_anything_starts(
    small_run: RunConfig, monkeypatch, tmp_path
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(InputError, match="WANDB_MODE=offline"):
        prepare(tracked(small_run, "wandb"))


def test_mlflows_database_needs_a_local_run_or_a_server(small_run: RunConfig) -> None:
    config = replace(tracked(small_run, "mlflow"), out="memory://tracked")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        prepare(config)
