"""Ray Train wiring: workers, retries, preemption notices, and what the user sees.

    python -m apps.train run --preset debug --base BASE --data PACK --out RUN
    ray job submit -- python -m apps.train run --preset vicuna-7b --base ... --out s3://bucket/run

Ray restarts the workers; our commit marker decides where they go on. Nothing is handed to
`ray.train.report` as a checkpoint, and Ray's own snapshot of the run is thrown away at each start
(a kill while it is being written would otherwise make the run unresumable).

torch is imported inside functions: Ray loads this module in processes that never compute, where the
import would take seconds of every start.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, cast

import pyarrow.fs
import ray
import ray.train
from ray.actor import ActorProxy
from ray.train import (
    ControllerError,
    FailureConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
    WorkerGroupError,
)
from ray.train import RunConfig as RayRunConfig
from ray.util.metrics import Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from apps.common.command.events import Reporter
from apps.common.command.every_machine import require_shared
from apps.common.command.runtime import ray_session
from apps.common.errors import CriaError, InputError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.packs import open_pack
from apps.train.attempts import Attempts, first_failure
from apps.train.config import RunConfig
from apps.train.loop.record import (
    Began,
    Event,
    Failed,
    Stepped,
    StepRecord,
    Stopped,
    Told,
    figures,
)
from apps.train.model import hardware
from apps.train.progress import shown
from apps.train.signals import leave, run_until_stopped

if TYPE_CHECKING:
    from apps.train.checkpoint.checkpoint import RunMark
    from apps.train.preflight import Prepared

_ENV = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}
_RELAY_INTERVAL_S = 0.25


class Payload(TypedDict):
    """What each rank is started with."""

    config: dict[str, object]
    commit: "RunMark"
    relay: "ActorProxy[_Relay]"
    environment: dict[str, str]
    """for the trackers, whose keys the user's machine knows and the workers' may not"""


_AT_THE_END = ("step", "loss", "val_loss", "tokens", "tokens_per_s", "seconds", "mfu", "usd")
GAUGES = (
    "checkpoint_time_s",  # of the newest whole one, unix time; before the first, of the start
    "step",
    "loss",
    "val_loss",
    "lr",
    "grad_norm",
    "tokens_per_s",
    "supervised_tokens_per_s",
    "mfu",
    "mfu_packed",
    "memory_gb",
    "data_wait_s",
    "checkpoint_s",
    "usd",
    "usd_to_go",
)


def run(config: RunConfig, reporter: Reporter) -> None:
    """Train to the end, resuming what lies at config.out."""
    from apps.train.own_cost import write_own_cost
    from apps.train.preflight import prepare

    prepared = prepare(config)
    if (summary := _finished(prepared)) is not None:
        reporter.line(f"{prepared.config.out} is already finished.")
        reporter.event("train.done", out=prepared.config.out, **summary)
        return
    prepared.pack.verify()
    reporter.event(
        "train.start",
        out=prepared.config.out,
        steps=prepared.num_steps,
        rows=prepared.pack.info.splits["train"].num_rows,
        done_step=prepared.done_step,
    )
    for name, value in _ENV.items():
        os.environ.setdefault(name, value)
    with ray_session():
        require_shared({f"--data {config.data}": prepared.config.data}, prepared.config.out)
        summary = _fit(prepared, reporter)
    write_own_cost(prepared.config)
    reporter.event("train.done", out=prepared.config.out, **summary)


def _finished(prepared: "Prepared") -> dict[str, float] | None:
    """What a run that has taken all its steps says again; None when there is work left."""
    from apps.train.checkpoint import checkpoint

    config, skipped = prepared.config, list[str]()
    if prepared.done_step < prepared.num_steps:
        return None
    # By sizes: contents are read where they are used, and for 13B they are 156 GB.
    if checkpoint.newest(config.out, "size", skipped.append, prepared.done_step) is None:
        return None  # damaged: the workers go on from an older one, and say why
    return _summary(config.out)


def _summary(run_uri: str) -> dict[str, float]:
    """What is said of a run at its end, whichever command took its steps."""
    from apps.train.loop.record import read_metrics

    summary: dict[str, float] = {}
    for record in read_metrics(run_uri):
        summary.setdefault("first_loss", record["loss"])
        known = {"step": record["step"], **dict(figures(record))}
        summary |= {name: known[name] for name in _AT_THE_END if name in known}
    return summary


def _fit(prepared: "Prepared", reporter: Reporter) -> dict[str, float]:
    from ray.train.torch import TorchConfig, TorchTrainer

    config, num_workers, use_gpu = _with_workers(prepared.config)
    relay = _start_relay()
    trainer = TorchTrainer(
        _rank_main,
        train_loop_config={
            "config": configs.to_dict(config),
            "commit": prepared.commit,
            "relay": relay,
            "environment": _environment_of(config),
        },
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo",
            timeout_s=int(config.faults.collective_timeout_s),
        ),
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"GPU": 1} if use_gpu else {"CPU": 1},
        ),
        run_config=_ray_run_config(config, _FailureTeller(relay), use_gpu=use_gpu),
    )

    def take() -> list[Event]:
        return ray.get(relay.take.remote())

    def ask() -> None:
        relay.stop.remote()
        reporter.line("Stopping after this step and its checkpoint; once more stops at once.")

    attempts = Attempts(config.faults.max_failures)
    try:
        with shown(
            take,
            reporter,
            attempts,
            num_steps=prepared.num_steps,
            done_step=lambda: _done_step(config.out),
        ) as seen:
            asked = run_until_stopped(trainer.fit, ask, lambda: seen.has_step)
    except TrainingFailedError as error:
        raise _sentence_of(error, attempts, num_workers) from error
    if seen.ended is not None:
        raise seen.ended
    if asked is not None and seen.stopped_step is not None:
        leave(asked, seen.stopped_step, prepared.num_steps)
    return _summary(config.out)


def _done_step(run_uri: str) -> int:
    """Step of the newest committed checkpoint; 0 without one."""
    from apps.train.checkpoint import checkpoint

    newest = next(iter(checkpoint.committed(run_uri)), None)
    return newest.step if newest is not None else 0


def _with_workers(config: RunConfig) -> tuple[RunConfig, int, bool]:
    """The run with its number of ranks, that number, and whether they are GPUs."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    use_gpu = config.device == "cuda" or (config.device == "auto" and gpus > 0)
    wanted = config.workers or (max(gpus, 1) if use_gpu else 1)
    available = gpus if use_gpu else int(ray.cluster_resources().get("CPU", 0))
    if wanted > available:
        kind = "GPU" if use_gpu else "CPU"
        raise InputError(
            f"{wanted} workers need a {kind} each but the cluster has {available}; use --workers "
            f"{max(available, 1)}{' or --device cpu' if use_gpu else ''}."
        )
    resolved = replace(config, workers=wanted, device="cuda" if use_gpu else "cpu")
    return resolved, wanted, use_gpu


def _ray_run_config(config: RunConfig, teller: UserCallback, *, use_gpu: bool) -> RayRunConfig:
    parent, _, name = config.out.rpartition("/")
    snapshot = storage.join(config.out, "checkpoint_manager_snapshot.json")
    storage.remove_tree(snapshot)
    fs, path = storage.filesystem(parent or "/")
    remote = None if storage.is_local(config.out) else _arrow_filesystem(fs)
    return RayRunConfig(
        name=name,
        storage_path=path,
        storage_filesystem=remote,
        failure_config=FailureConfig(
            max_failures=config.faults.max_failures,
            controller_failure_limit=config.faults.max_start_failures,
            max_preemption_failures=-1,
        ),
        callbacks=[teller],
        worker_runtime_env={"env_vars": hardware.allocator_environment()} if use_gpu else None,
    )


def _arrow_filesystem(fs: object) -> pyarrow.fs.FileSystem:
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs))


def _rank_main(given: dict[str, object]) -> None:
    """What Ray Train runs on each worker."""
    from apps.train.batches.micro_batch import PackRows
    from apps.train.loop.loop import Hooks, TrainingStopped
    from apps.train.loop.worker import work

    payload = cast(Payload, given)
    config = configs.from_dict(RunConfig, payload["config"])
    os.environ |= payload["environment"]
    relay = payload["relay"]

    def tell(event: Event) -> None:
        ray.get(relay.put.remote(event))

    context = ray.train.get_context()
    tell(Began(context.get_world_rank(), ray.util.get_node_ip_address()))
    pack = open_pack(config.data)
    os.environ.setdefault("LOCAL_RANK", str(context.get_local_rank()))
    preemption = _Preemption()
    gauges = {name: Gauge(f"cria_train_{name}", f"{name} of the newest step") for name in GAUGES}
    saved = gauges["checkpoint_time_s"]
    if context.get_world_rank() == 0:
        saved.set(time.time())
    try:
        work(
            config,
            PackRows(pack.split("train"), pack.info.pad_id),
            PackRows(pack.split("val"), pack.info.pad_id),
            commit=payload["commit"],
            hooks=Hooks(
                on_step=_step_sender(tell, gauges),
                on_commit=lambda: saved.set(time.time()),
                on_event=lambda name, fields: tell(Told(name, fields)),
                stopped=_stop_asker(relay),
                preempted=preemption.is_near,
                after_preemption=preemption.wait,
            ),
        )
    except TrainingStopped as error:
        tell(Stopped(error))  # the same on every rank; a retry would only repeat it


def _environment_of(config: RunConfig) -> dict[str, str]:
    prefixes = tuple(f"{name.upper()}_" for name in config.log)
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def _step_sender(
    tell: Callable[[Event], None], gauges: Mapping[str, Gauge]
) -> Callable[[StepRecord], None]:
    sent_s = 0.0

    def on_step(record: StepRecord) -> None:
        nonlocal sent_s
        gauges["step"].set(record["step"])
        for name, value in figures(record):
            if name in gauges:
                gauges[name].set(value)
        is_last = record["step"] == record["num_steps"]
        if is_last or "val_loss" in record or time.monotonic() - sent_s >= _RELAY_INTERVAL_S:
            sent_s = time.monotonic()
            tell(Stepped(record))

    return on_step


class _Preemption:
    """Ray's preemption notice, answered once a notice."""

    def __init__(self) -> None:
        self._answered: set[tuple[int | None, tuple[str, ...]]] = set()
        self._deadline_ms: int | None = None

    def is_near(self) -> bool:
        info = ray.train.get_preemption_info()
        if info is None:
            return False
        notice = (info.deadline_ms, tuple(info.preempted_node_ids))
        if notice in self._answered:
            return False
        self._answered.add(notice)
        self._deadline_ms = info.deadline_ms
        return True

    def wait(self) -> None:
        """Until the machine is gone: Ray stops the workers at the deadline.

        Without a deadline training goes on: nobody knows for how long.
        """
        if self._deadline_ms is not None:
            time.sleep(max(self._deadline_ms / 1000 - time.time(), 0) + 5)


class _Relay:
    """Between the ranks and the command that the user started: events up, the wish to stop down."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._is_stopping = False

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        taken, self._events = self._events, []
        return taken

    def stop(self) -> None:
        self._is_stopping = True

    def is_stopping(self) -> bool:
        return self._is_stopping


def _start_relay() -> "ActorProxy[_Relay]":
    """On the machine of the command."""
    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    return ray.remote(_Relay).options(num_cpus=0, scheduling_strategy=strategy).remote()


def _stop_asker(relay: "ActorProxy[_Relay]") -> Callable[[], bool]:
    asked_s = 0.0

    def is_stopping() -> bool:
        nonlocal asked_s
        if time.monotonic() - asked_s < _RELAY_INTERVAL_S:
            return False
        asked_s = time.monotonic()
        return ray.get(relay.is_stopping.remote())

    return is_stopping


class _FailureTeller(UserCallback):
    """Runs where Ray Train decides about the next attempt."""

    def __init__(self, relay: "ActorProxy[_Relay]") -> None:
        self._relay = relay

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        ray.get(self._relay.put.remote(Failed(first_failure(worker_exceptions))))


def _sentence_of(error: TrainingFailedError, attempts: Attempts, num_workers: int) -> CriaError:
    """What the command ends with when no attempt is left."""
    if isinstance(error, WorkerGroupError):
        failure = first_failure(error.worker_failures)
        kind = InputError if failure.exit_code == InputError.exit_code else CriaError
        return kind(
            f"{attempts.sentence(failure)} No attempt is left; run the same command again to go "
            "on from the newest checkpoint."
        )
    cause = error.controller_failure if isinstance(error, ControllerError) else error
    reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
    return CriaError(
        f"Ray could not start {num_workers} workers ({reason}); look at `ray status`, then run the "
        "same command again."
    )
