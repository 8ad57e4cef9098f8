"""Where the records of a run also go: TensorBoard, Weights & Biases, MLflow (`--log`). Rank 0 only.

    OUT/tensorboard/      event files
    OUT/wandb/            Weights & Biases' files; WANDB_MODE=offline keeps them there, and
                          `wandb sync OUT/wandb/offline-run-*` sends them later
    OUT/mlflow.db         MLflow's database where MLFLOW_TRACKING_URI names no server; texts are in
                          OUT/mlflow/
    OUT/tracking.json     the ids under which both know the run, so that a resume goes on with them

Metrics.jsonl is the truth and these are views: one that fails is told once and left out.
Repeated steps of a resume: TensorBoard forgets the old, MLflow keeps both, W&B the old ones.
"""

import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

from apps.common.errors import in_one_line
from apps.common.files import config as configs
from apps.common.files import storage
from apps.train.config import RunConfig
from apps.train.loop.record import StepRecord, figures

PROJECT = "cria"
"""where neither WANDB_PROJECT nor MLFLOW_EXPERIMENT_NAME says otherwise"""
IDS_NAME = "tracking.json"
_FLUSH_S = 5.0
_MOST_METRICS = 1000
"""that MLflow takes at once (mlflow.org, REST API, log-batch)"""
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "WANDB_ERROR_REPORTING": "false",
}
"""nothing is told to third parties, and a server that is away does not hold up the training"""


Tell = Callable[[str, Mapping[str, object]], None]
"""of something worth a line: its name and fields"""


class Tracker(Protocol):
    """One place that takes records."""

    def write(self, record: StepRecord) -> None: ...

    def flush(self) -> None: ...

    def close(self, *, is_done: bool) -> None:
        """`is_done`: the run is at its end, by its steps or its patience."""
        ...


class Trackers:
    """All that a run asked for."""

    def __init__(
        self,
        config: RunConfig,
        resumed_step: int,
        tell: Tell,
    ) -> None:
        self._tell = tell
        self._is_done = False
        self._open: dict[str, Tracker] = {}
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        for name in config.log:
            try:
                self._open[name] = _KINDS[name](config, resumed_step)
            except Exception as error:
                self._fail(name, error)

    def write(self, record: StepRecord) -> None:
        self._is_done = record["step"] == record["num_steps"]
        self._each(lambda tracker: tracker.write(record))

    def finish(self) -> None:
        """No steps are to follow, though some that were planned were not taken."""
        self._is_done = True

    def flush(self) -> None:
        self._each(lambda tracker: tracker.flush())

    def close(self) -> None:
        self._each(lambda tracker: tracker.close(is_done=self._is_done))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                act(tracker)
            except Exception as error:
                del self._open[name]
                self._fail(name, error)

    def _fail(self, name: str, error: Exception) -> None:
        reason = in_one_line(error)
        self._tell("tracker.failed", {"tracker": name, "reason": f"{reason}; training goes on."})


class TensorBoard:
    """Event files beside the run; answers are texts."""

    def __init__(self, config: RunConfig, resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = storage.join(config.out, "tensorboard")
        self._board = SummaryWriter(folder, purge_step=resumed_step + 1, flush_secs=30)

    def write(self, record: StepRecord) -> None:
        for name, value in figures(record):
            self._board.add_scalar(name, value, record["step"])
        for number, sample in enumerate(record.get("samples", ()), start=1):
            text = f"**{sample['prompt']}**\n\n{sample['answer']}"
            self._board.add_text(f"samples/{number}", text, record["step"])

    def flush(self) -> None:
        self._board.flush()

    def close(self, *, is_done: bool) -> None:
        self._board.close()


class Wandb:
    """Weights & Biases, under one run id for all attempts."""

    def __init__(self, config: RunConfig, resumed_step: int) -> None:
        import wandb

        self._table = wandb.Table
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=_known_id(config.out, "wandb", lambda: uuid.uuid4().hex),
            name=config.out.rpartition("/")[2],
            dir=storage.local_path(config.out)
            if storage.is_local(config.out)
            else tempfile.gettempdir(),
            config=configs.to_dict(config),
            allow_val_change=True,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, save_code=False),
        )

    def write(self, record: StepRecord) -> None:
        logged: dict[str, object] = dict(figures(record))
        if samples := record.get("samples"):
            rows = [[sample["prompt"], sample["answer"]] for sample in samples]
            logged["samples"] = self._table(columns=["prompt", "answer"], data=rows)
        self._run.log(logged, step=record["step"])

    def flush(self) -> None:
        """A process of W&B's own writes what it is given."""

    def close(self, *, is_done: bool) -> None:
        self._run.finish(exit_code=0 if is_done else 1)


class Mlflow:
    """MLflow, under one run id for all attempts; metrics go in batches."""

    def __init__(self, config: RunConfig, resumed_step: int) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        path = storage.local_path(config.out) if storage.is_local(config.out) else ""
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{path}/mlflow.db")
        self._artifacts = None if uri else f"file://{path}/mlflow"
        self._run_id = _known_id(config.out, "mlflow", lambda: self._create(config))
        self._client.update_run(self._run_id, status="RUNNING")
        self._waiting: list[tuple[str, float, int, int]] = []
        self._flushed_s = time.monotonic()

    def _create(self, config: RunConfig) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            number = experiment.experiment_id
        else:
            number = self._client.create_experiment(name, self._artifacts)
        run = self._client.create_run(number, run_name=config.out.rpartition("/")[2])
        for key, value in _flat(configs.to_dict(config)):
            self._client.log_param(run.info.run_id, key, value)
        return run.info.run_id

    def write(self, record: StepRecord) -> None:
        now_ms, step = round(time.time() * 1000), record["step"]
        self._waiting += [(name, value, now_ms, step) for name, value in figures(record)]
        if samples := record.get("samples"):
            text = "\n\n".join(f"**{s['prompt']}**\n\n{s['answer']}" for s in samples)
            self._client.log_text(self._run_id, text, f"samples/step-{step:08}.md")
        if time.monotonic() - self._flushed_s >= _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        from mlflow.entities import Metric

        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _MOST_METRICS):
            metrics = [Metric(*metric) for metric in waiting[start : start + _MOST_METRICS]]
            self._client.log_batch(self._run_id, metrics=metrics)
        self._flushed_s = time.monotonic()

    def close(self, *, is_done: bool) -> None:
        self.flush()
        self._client.set_terminated(self._run_id, "FINISHED" if is_done else "KILLED")


_KINDS: dict[str, Callable[[RunConfig, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
}


def _known_id(run_uri: str, name: str, make: Callable[[], str]) -> str:
    """The id that the run has there; a new one where it has none."""
    uri = storage.join(run_uri, IDS_NAME)
    ids: dict[str, str] = storage.read_json(uri) if storage.exists(uri) else {}
    if name not in ids:
        ids[name] = make()
        storage.write_json(uri, ids)
    return ids[name]


def _flat(settings: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """{"optim": {"lr": 1}} -> [("optim.lr", 1)]"""
    pairs: list[tuple[str, object]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            pairs += _flat({str(k): v for k, v in value.items()}, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs
