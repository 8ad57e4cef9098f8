"""Managed jobs of SkyPilot: asked for, looked at and cancelled. What 0.14.1 says of a job:

    RECOVERING, FAILED_NO_RESOURCE           its zone has no machines, or has them no more
    PENDING, STARTING                        SkyPilot looks for machines there, if need be forever
    FAILED, FAILED_SETUP, FAILED_PRECHECKS   bad input, or it fails anywhere
    FAILED_CONTROLLER, CANCELLED             somebody must look

A lost machine ends our commands with 75, which a task's `recover_on_exit_codes` makes RECOVERING.
"""

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from apps.common.errors import ConfigError, CriaError, InputError
from apps.common.files import config as configs
from apps.common.spot.trace import ON_DEMAND
from cluster.controller import CloudIsAway

if TYPE_CHECKING:
    import sky
    from sky.server.common import RequestId

TAKEN = {"RECOVERING", "FAILED_NO_RESOURCE"}
BAD_INPUT = {"FAILED_PRECHECKS"}
ENDED = {"SUCCEEDED", "CANCELLED"}
CANCEL_AGAIN_S = 180.0
"""A cancel that was taken and not carried out is asked for again after so long."""
CANCEL_LIMIT_S = 600.0
"""So long a launcher waits for one without looking at anything else."""
_NAMES = {"A100-40GB": "A100", "RTX-4090": "RTX4090", "RTX-5090": "RTX5090"}
"""SkyPilot's names of accelerators, where a plan has others."""
FIELDS = ("job_id", "job_name", "status", "submitted_at", "start_at", "end_at", "failure_reason")


class Answer(Protocol):
    """A record of SkyPilot's queue."""

    def __getitem__(self, name: str) -> object: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """What the queue says of one managed job."""

    job_id: int
    name: str
    status: str
    starts_s: float | None
    """Unix time since which SkyPilot looks for machines; None while the job waits for its turn."""
    has_run: bool
    """Whether its machines were there once."""
    end_s: float | None
    """Unix time of its end."""
    reason: str

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED or self.status.startswith("FAILED")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """What one job rents: only that is paid at the prices that cost.json has."""

    num_nodes: int
    accelerators: Mapping[str, int]
    """of each, by SkyPilot's name: {"A100-80GB": 8}"""


def machines_of(num_gpus: int, accelerator: str, num_nodes: int) -> Machines:
    """Of GPUs as a plan names them. Raises ConfigError."""
    if num_gpus % num_nodes:
        raise ConfigError(
            f"The plan has {num_gpus} GPUs on {num_nodes} machines, and SkyPilot rents machines "
            "that are all alike; plan with a number that they share evenly."
        )
    name = _NAMES.get(accelerator, accelerator)
    return Machines(num_nodes=num_nodes, accelerators={name: num_gpus // num_nodes})


def task_config(
    path: Path,
    place: str,
    envs: Mapping[str, str],
    secrets: Sequence[str] = (),
    machines: Machines | None = None,
) -> dict[str, object]:
    """The task file, bound to one zone and market, and to `machines` in place of those that it
    would take; what counts as a lost machine stays.

    Values of `secrets` are taken from this process's environment. Raises ConfigError.
    """
    task = dict(configs.load_yaml(str(path)))
    resources = dict(_part(task, "resources", path))
    if machines is not None:
        task["num_nodes"] = machines.num_nodes
        resources["accelerators"] = dict(machines.accelerators)
    resources.pop("infra", None)
    if place == ON_DEMAND:
        resources["use_spot"] = False
    else:
        resources.pop("any_of", None)
        resources |= {"use_spot": True, "infra": place}
    return {
        **task,
        "resources": resources,
        "envs": {**_part(task, "envs", path), **envs},
        "secrets": {**_part(task, "secrets", path), **from_environment(secrets)},
    }


def declared_envs(path: Path) -> set[str]:
    """Names under `envs` of a task file."""
    return set(_part(configs.load_yaml(str(path)), "envs", path))


def _part(task: Mapping[str, object], name: str, path: Path) -> Mapping[str, object]:
    part = task.get(name) or {}
    if not isinstance(part, Mapping):
        raise ConfigError(f"{path}: {name} is {part!r}; expected a mapping, as in train.yaml.")
    return cast(Mapping[str, object], part)


def check_installed() -> None:
    """Raises ConfigError."""
    try:
        importlib.import_module("sky")
    except ImportError:
        message = "SkyPilot is not installed; `pip install skypilot==0.14.1`, then `sky check`."
        raise ConfigError(message) from None


def envs_of(pairs: Sequence[str]) -> dict[str, str]:
    """Worked example: {"MODEL": "a=b"} of MODEL=a=b. Raises ConfigError."""
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"--env is {pair!r}; expected NAME=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)


def from_environment(names: Sequence[str]) -> dict[str, str]:
    """Raises ConfigError."""
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise ConfigError(f"The task needs {missing[0]}, which is not set here; export it first.")
    return {name: os.environ[name] for name in names}


def checked(config: Mapping[str, object]) -> "sky.Task":
    """SkyPilot's own reading of a task. Raises InputError."""
    import sky

    try:
        return sky.Task.from_yaml_config(dict(config))
    except ValueError as error:
        raise InputError(f"SkyPilot refuses the task file: {error}") from None


def launch(config: Mapping[str, object], name: str) -> int:
    """The number of a new job. Raises CloudIsAway, InputError."""
    import sky

    task = checked(config)
    job_ids, _ = cast(
        tuple[Sequence[int] | None, object], _get(lambda: sky.jobs.launch(task, name=name))
    )
    if not job_ids:
        raise CriaError(f"SkyPilot launched {name} and gave it no number; see `sky jobs queue`.")
    return job_ids[0]


def cancel(job_id: int) -> None:
    """Ask for it; the job ends a while later."""
    import sky

    _get(lambda: sky.jobs.cancel(job_ids=[job_id], graceful=True))


def queue(*, job_id: int | None = None, name: str | None = None) -> list[JobRecord]:
    """The job of that number, or those with `name` anywhere in theirs."""
    import sky

    wanted = None if job_id is None else [job_id]
    answer = _get(
        lambda: sky.jobs.queue_v2(
            refresh=True, job_ids=wanted, name_match=name, fields=list(FIELDS)
        )
    )
    records, *_ = cast(tuple[Sequence[Answer], object], answer)
    return [_job_record(one) for one in records]


def _job_record(answer: Answer) -> JobRecord:
    status = answer["status"]
    return JobRecord(
        job_id=cast(int, answer["job_id"]),
        name=str(answer["job_name"]),
        status=str(getattr(status, "value", status)),
        starts_s=cast(float | None, answer["submitted_at"]),
        has_run=answer["start_at"] is not None,
        end_s=cast(float | None, answer["end_at"]),
        reason=str(answer["failure_reason"] or ""),
    )


def _get(request: Callable[[], object]) -> object:
    """The answer to a request; CloudIsAway when SkyPilot's server or controller cannot be asked.

    A server that starts again, or the proxy before it, forgets requests, ends them or answers
    502 and 404, which the client makes a bare RuntimeError; connections break as OSErrors.
    """
    import sky

    known = sky.exceptions
    away = (
        known.ApiServerConnectionError,
        known.ClusterNotUpError,
        known.ServerTemporarilyUnavailableError,
        known.RequestInterruptedError,
        known.RequestCancelled,
    )
    try:
        return sky.get(cast("RequestId[object]", request()))
    except away as error:
        raise CloudIsAway(f"SkyPilot cannot be asked now: {error}") from error
    except OSError as error:  # those of requests, too
        if error.filename is not None:  # a file here, which is no better at the next look
            raise
        raise CloudIsAway(f"SkyPilot cannot be asked now: {error}") from error
    except RuntimeError as error:
        if not str(error).startswith("Failed to get request"):
            raise
        raise CloudIsAway(f"SkyPilot's server lost the request: {error}") from error


def failure(record: JobRecord, place: str) -> CriaError:
    """A sentence; exit code 2 where the input is to blame."""
    codes = re.search(r"exit codes? \[?([\d, ]+)", record.reason)
    exit_codes = codes[1].replace(",", " ").split() if codes else []
    kind = InputError if record.status in BAD_INPUT or "2" in exit_codes else CriaError
    reason = record.reason.strip().rstrip(".") or "SkyPilot gives no reason"
    return kind(
        f"Managed job {record.job_id} in {place} is {record.status}: {reason}; it is not started "
        f"on other machines: read `sky jobs logs {record.job_id}`, mend it, run this again."
    )
