"""Ray Train wiring: where the ranks run, how often they are tried, and what the user sees.

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
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow.fs
import ray
import ray.train
from ray.exceptions import ActorDiedError
from ray.train import (
    ControllerError,
    FailureConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
    WorkerGroupError,
)
from ray.train import RunConfig as RayRunConfig

from apps.common.command.events import Reporter
from apps.common.command.every_machine import require_shared
from apps.common.command.runtime import ray_session
from apps.common.errors import CriaError, InputError, first_line
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.files.lock import alone_in
from apps.train.arguments import Arguments
from apps.train.attempts import Attempts, first_failure
from apps.train.config import RunConfig
from apps.train.loop.record import Event, figures
from apps.train.model import hardware
from apps.train.progress import shown
from apps.train.rank import Payload, rank_main
from apps.train.relay import FailureTeller, start_relay
from apps.train.signals import leave, run_until_stopped

if TYPE_CHECKING:
    from apps.train.checkpoint.checkpoint import Commit
    from apps.train.preflight import Prepared

_ENV = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}
_AT_THE_END = ("step", "loss", "val_loss", "tokens", "tokens_per_s", "seconds", "mfu", "usd")


def run(config: RunConfig, arguments: Arguments, reporter: Reporter) -> None:
    """Train to the end, resuming what lies at config.out; `arguments` as check_run found them."""
    with alone_in(config.out):
        _run(config, arguments, reporter)


def _run(config: RunConfig, arguments: Arguments, reporter: Reporter) -> None:
    from apps.train.loop.own_cost import write_missing_cost, write_own_cost
    from apps.train.preflight import prepare

    prepared = prepare(config, arguments)
    if (summary := _finished(prepared)) is not None:
        write_missing_cost(prepared.config)  # a kill right after the last step left none
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
    """What a run at its end, by its steps or its patience, says again; None with work left."""
    from apps.train.checkpoint import checkpoint

    config, skipped = prepared.config, list[str]()
    has_steps_left = prepared.done_step < prepared.num_steps
    if has_steps_left and not config.metrics.patience:
        return None
    # By sizes: contents are read where they are used, and for 13B they are 156 GB.
    last = checkpoint.newest(config.out, "size", skipped.append, prepared.done_step)
    if last is None:
        return None  # none, or damaged: the workers go on from an older one, and say why
    if has_steps_left and not _has_lost_patience(prepared, last.commit):
        return None
    return _summary(config.out)


def _has_lost_patience(prepared: "Prepared", last: "Commit") -> bool:
    patience, now = prepared.config.metrics.patience, prepared.commit.get("validated_on")
    is_judged_alike = last.get("validated_on", now) == now
    return is_judged_alike and 0 < patience <= last.get("num_worse", 0)


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

    from apps.train.checkpoint.checkpoint import committed_step
    from apps.train.checkpoint.fence import next_number

    config, num_workers, use_gpu = _with_workers(prepared.config)
    relay = start_relay()
    payload = Payload(
        config=configs.to_dict(config),
        commit=prepared.commit,
        token=uuid.uuid4().hex,
        number=next_number(config.out),
        relay=relay,
        started_s=time.time(),
        environment=_environment_of(config),
    )
    trainer = TorchTrainer(
        rank_main,
        train_loop_config=dict(payload),
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo",
            timeout_s=int(config.faults.collective_timeout_s),
        ),
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"GPU": 1} if use_gpu else {"CPU": 1},
        ),
        run_config=_ray_run_config(config, FailureTeller(relay), use_gpu=use_gpu),
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
            done_step=lambda: committed_step(config.out),
        ) as seen:
            asked = run_until_stopped(trainer.fit, ask, lambda: seen.has_step)
    except TrainingFailedError as error:
        raise _sentence_of(error, attempts, num_workers) from error
    except ActorDiedError as error:
        raise _controller_died(error, config.out) from error
    if seen.ended is not None:
        raise seen.ended
    if asked is not None and seen.stopped_step is not None:
        leave(asked, seen.stopped_step, prepared.num_steps)
    return _summary(config.out)


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


def _environment_of(config: RunConfig) -> dict[str, str]:
    prefixes = tuple(f"{name.upper()}_" for name in config.log)
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


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
    reason = first_line(cause, 1000).rstrip(".")
    return CriaError(
        f"Ray could not start {num_workers} workers ({reason}); look at `ray status`, then run the "
        "same command again."
    )


def _controller_died(error: ActorDiedError, out: str) -> CriaError:
    """Of Ray Train's controller, which opens the run's folder before any worker starts."""
    reason = str(error).strip().splitlines()[-1].rstrip(".")
    bucket = "" if storage.is_local(out) else f" Its Ray must have the credentials of {out}."
    return CriaError(
        f"Ray could not start the training controller ({reason}).{bucket} Then run the same "
        "command again."
    )
