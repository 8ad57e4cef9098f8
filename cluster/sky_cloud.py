"""SkyPilot's managed jobs as the cloud of the controller: one job at a time, bound to one place.

Nobody says which zones have machines, so that is learnt: a zone counts as up until a start there
fails or the job is taken, and is asked again a while later. What SkyPilot 0.14.1 calls a job:

    RECOVERING, FAILED_NO_RESOURCE           the zone has no machines: the controller moves on
    PENDING or STARTING for `start_s`        the same: SkyPilot itself would try there forever
    FAILED, FAILED_SETUP, FAILED_PRECHECKS   bad input, or it fails anywhere: the launch ends
    FAILED_CONTROLLER, CANCELLED             somebody must look: the launch ends

A lost machine ends our commands with 75, which the task's `recover_on_exit_codes` makes RECOVERING.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import yaml

from apps.common.errors import CriaError, InputError
from apps.common.spot.trace import ON_DEMAND
from apps.train.checkpoint import checkpoint
from apps.train.loop.record import StepRecord, read_metrics
from apps.train.spot.job import IDLE
from cluster.controller import CloudIsAway, Rental

if TYPE_CHECKING:
    from sky.server.common import RequestId

TAKEN = {"RECOVERING", "FAILED_NO_RESOURCE"}
BAD_INPUT = {"FAILED_PRECHECKS"}
ENDED = {"SUCCEEDED", "CANCELLED"}
FIELDS = ("job_id", "job_name", "status", "start_at", "end_at", "failure_reason")
CANCEL_POLL_S = 5.0


class Answer(Protocol):
    """A record of SkyPilot's queue."""

    def __getitem__(self, name: str) -> object: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """What the queue says of one managed job."""

    job_id: int
    status: str
    has_run: bool
    """Whether its machines were there once."""
    end_s: float | None
    """Unix time of its end."""
    reason: str

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED or self.status.startswith("FAILED")


@dataclass(kw_only=True, slots=True)
class Held:
    """Where the job is; all that must be known to take it up again."""

    job_id: int | None = None
    place: str = IDLE
    """Other than IDLE without a job: its launch was under way when the launcher stopped."""
    asked_s: float = 0.0
    """Unix time of the launch."""
    is_leaving: bool = False
    """The job was cancelled by us, and may not have ended yet."""
    failed_s: dict[str, float] = field(default_factory=dict[str, float])
    """Unix time at which a zone was last seen without machines."""
    lost_s: float = 0.0
    lost_at: float | None = None
    """`seconds` of the newest step when machines were last lost. They tell one attempt's steps from
    another's: while that step is the newest still, none was taken since."""


@dataclass(kw_only=True, slots=True)
class SkyCloud:
    """See the head of this file."""

    task: Path
    name: str
    out: str
    work_s: float
    zones: tuple[str, ...]
    envs: Mapping[str, str]
    retry_s: float
    start_s: float
    held: Held
    save: Callable[[], None]
    """Keeps `held`, before and after every launch."""
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def up(self) -> tuple[str, ...]:
        """Best first; those of a region that has just taken the job away come last."""
        since_s = self.clock() - self.retry_s
        closed = {zone for zone, failed_s in self.held.failed_s.items() if failed_s > since_s}
        regions = {_region(zone) for zone in closed}
        return tuple(
            sorted((z for z in self.zones if z not in closed), key=lambda z: _region(z) in regions)
        )

    def place(self) -> str:
        if self.held.is_leaving:
            self.move(IDLE)
        record = self._record()
        if record is None:
            return self.held.place
        if record.status in TAKEN or self._starts_too_long(record):
            self.held.failed_s[self.held.place] = self.clock()
            self.held.lost_s += max(self.work_s * (self._taken() - self._saved()), 0.0)
            newest = self._last_step()
            self.held.lost_at = newest["seconds"] if newest else None
            self.move(IDLE)
        elif record.has_ended and record.status != "SUCCEEDED":
            where = self.held.place
            self._leave()
            raise _failure(record, where)
        return self.held.place

    def _starts_too_long(self, record: JobRecord) -> bool:
        """On demand SkyPilot may look everywhere, and there is no better place to ask."""
        is_bound = self.held.place != ON_DEMAND
        return is_bound and not record.has_run and self.clock() - self.held.asked_s > self.start_s

    def rental(self) -> tuple[str, Rental]:
        record = self._record()
        if record is None or not (record.has_run or record.status == "STARTING"):
            return self.held.place, "none"
        return self.held.place, "rented" if record.has_run else "starting"

    def left_s(self) -> float:
        """Idle, the job has what is saved: a new start takes no other step along."""
        done = self._saved() if self.held.place == IDLE else self._taken()
        return self.work_s * (1 - done)

    def has_ended(self) -> bool:
        record = self._record()
        return record is not None and record.status == "SUCCEEDED"

    def ended_s(self) -> float | None:
        record = self._record()
        return record.end_s if record is not None and record.has_ended else None

    def lost_s(self) -> float:
        return self.held.lost_s

    def _taken(self) -> float:
        """Share of the steps that were taken, saved or not, but for those that are lost."""
        record = self._last_step()
        if record is None:
            return 0.0
        if record["seconds"] == self.held.lost_at:
            return self._saved()
        return record["step"] / record["num_steps"]

    def _saved(self) -> float:
        """Share of the steps that a whole checkpoint holds."""
        record = self._last_step()
        return checkpoint.committed_step(self.out) / record["num_steps"] if record else 0.0

    def _last_step(self) -> StepRecord | None:
        return next(reversed(read_metrics(self.out)), None)

    def move(self, place: str) -> None:
        """Two jobs never write to one run: the next is launched when the last has ended."""
        self._cancel()
        self._leave()
        if place == IDLE:
            return
        self.held.place, self.held.asked_s = place, self.clock()
        self.save()
        self.held.job_id = _launch(task_config(self.task, place, self.name, self.envs), self.name)
        self.save()

    def _leave(self) -> None:
        self.held.job_id, self.held.place, self.held.is_leaving = None, IDLE, False
        self.save()

    def _cancel(self) -> None:
        record = self._record()
        if record is None or record.has_ended:
            return
        import sky

        self.held.is_leaving = True
        self.save()
        job_id = record.job_id
        _get(lambda: sky.jobs.cancel(job_ids=[job_id], graceful=True))
        while not record.has_ended:
            self.sleep(CANCEL_POLL_S)
            record = self._record() or record

    def _record(self) -> JobRecord | None:
        """Of the present job; one whose launch was under way is looked for by its name."""
        held = self.held
        if held.place == IDLE:
            return None
        if held.job_id is None:
            named = [record for record in _queue(name=self.name) if not record.has_ended]
            if not named:
                self._leave()
                return None
            held.job_id = max(record.job_id for record in named)
            self.save()
        records = _queue(job_id=held.job_id)
        if not records:
            raise CriaError(
                f"SkyPilot knows no managed job {held.job_id}, which should run in {held.place}; "
                f"see `sky jobs queue`, or remove {self.out}/launch.json to forget it."
            )
        return records[0]


def _region(zone: str) -> str:
    """Worked example: aws/us-east-1/us-east-1a is in aws/us-east-1, and so is aws/us-east-1."""
    return "/".join(zone.split("/")[:2])


def _failure(record: JobRecord, place: str) -> CriaError:
    """A sentence; exit code 2 where the input is to blame."""
    codes = re.search(r"exit codes? \[?([\d, ]+)", record.reason)
    exit_codes = codes[1].replace(",", " ").split() if codes else []
    kind = InputError if record.status in BAD_INPUT or "2" in exit_codes else CriaError
    reason = record.reason.strip().rstrip(".") or "SkyPilot gives no reason"
    return kind(
        f"Managed job {record.job_id} in {place} is {record.status}: {reason}; it is not started "
        f"on other machines: read `sky jobs logs {record.job_id}`, mend it, run this again."
    )


def task_config(path: Path, place: str, run: str, envs: Mapping[str, str]) -> dict[str, object]:
    """The task file, bound to one zone and market; what counts as a lost machine stays."""
    task = cast(dict[str, object], yaml.safe_load(path.read_text()))
    resources = dict(cast(Mapping[str, object], task["resources"]))
    resources.pop("infra", None)
    if place == ON_DEMAND:
        resources["use_spot"] = False
    else:
        resources.pop("any_of", None)
        resources |= {"use_spot": True, "infra": place}
    declared = cast(Mapping[str, object], task["envs"])
    return {**task, "resources": resources, "envs": {**declared, **envs, "RUN": run}}


def _launch(config: Mapping[str, object], name: str) -> int:
    import sky

    try:
        task = sky.Task.from_yaml_config(dict(config))
    except ValueError as error:
        raise InputError(f"SkyPilot refuses the task file: {error}") from None
    job_ids, _ = cast(
        tuple[Sequence[int] | None, object], _get(lambda: sky.jobs.launch(task, name=name))
    )
    if not job_ids:
        raise CriaError(f"SkyPilot launched {name} and gave it no number; see `sky jobs queue`.")
    return job_ids[0]


def _queue(*, job_id: int | None = None, name: str | None = None) -> list[JobRecord]:
    """SkyPilot matches a name anywhere in a job's; here it is the whole of it."""
    import sky

    wanted = None if job_id is None else [job_id]
    answer = _get(
        lambda: sky.jobs.queue_v2(
            refresh=True, job_ids=wanted, name_match=name, fields=list(FIELDS)
        )
    )
    records, *_ = cast(tuple[Sequence[Answer], object], answer)
    return [_job_record(one) for one in records if name is None or one["job_name"] == name]


def _job_record(answer: Answer) -> JobRecord:
    status = answer["status"]
    return JobRecord(
        job_id=cast(int, answer["job_id"]),
        status=str(getattr(status, "value", status)),
        has_run=answer["start_at"] is not None,
        end_s=cast(float | None, answer["end_at"]),
        reason=str(answer["failure_reason"] or ""),
    )


def _get(request: Callable[[], object]) -> object:
    """The answer to a request; CloudIsAway when SkyPilot's server or controller cannot be asked."""
    import sky

    try:
        return sky.get(cast("RequestId[object]", request()))
    except (sky.exceptions.ApiServerConnectionError, sky.exceptions.ClusterNotUpError) as error:
        raise CloudIsAway(f"SkyPilot cannot be asked now: {error}") from error
