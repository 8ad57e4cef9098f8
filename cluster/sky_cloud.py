"""SkyPilot's managed jobs as the cloud of the controller: one job at a time, bound to one place.

Nobody says which zones have machines, so that is learnt: a zone counts as up until a start there
fails or the job is taken, and is asked again a while later. A start that takes longer than
`start_s` has failed: SkyPilot itself would try there forever. A job that has failed otherwise ends
the launch (see sky_jobs.py).
"""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from apps.common.errors import CriaError, InputError
from apps.common.spot.trace import ON_DEMAND
from apps.train.checkpoint import checkpoint
from apps.train.loop.record import StepRecord, read_metrics
from apps.train.spot.job import IDLE
from cluster import sky_jobs
from cluster.controller import CloudIsAway, Rental
from cluster.sky_jobs import JobRecord

CANCEL_POLL_S = 5.0
ARRIVAL_S = 300.0
"""SkyPilot's queue lists a launch within this time after it was asked for, or it never arrived."""


@dataclass(kw_only=True, slots=True)
class Held:
    """Where the job is; all that must be known to take it up again."""

    job_id: int | None = None
    place: str = IDLE
    """Other than IDLE without a job: its launch was under way when the launcher stopped."""
    job_name: str = ""
    """of this one launch alone, known before SkyPilot is asked: nobody else's job is taken up"""
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
    secrets: tuple[str, ...]
    """names of variables whose values the task is given"""
    machines: sky_jobs.Machines | None
    """None: those that the task asks for"""
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
        if record.status in sky_jobs.TAKEN or self._starts_too_long(record):
            self.held.failed_s[self.held.place] = self.clock()
            self.held.lost_s += max(self.work_s * (self._taken() - self._saved()), 0.0)
            newest = self._last_step()
            self.held.lost_at = newest["seconds"] if newest else None
            self.move(IDLE)
        elif record.has_ended and record.status != "SUCCEEDED":
            where = self.held.place
            self._leave()
            raise sky_jobs.failure(record, where)
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
        task = None if place == IDLE else self._task_at(place)  # what may fail comes first
        self._cancel()
        self._leave()
        if task is None:
            return
        self.held.place, self.held.asked_s = place, self.clock()
        self.held.job_name = f"{self.name}-{secrets.token_hex(4)}"
        self.save()
        try:
            self.held.job_id = sky_jobs.launch(task, self.held.job_name)
        except InputError:
            self._leave()  # nothing was asked for
            raise
        self.save()

    def check(self) -> None:
        """Raises ConfigError and InputError for a task that could be launched nowhere."""
        sky_jobs.checked(self._task_at(self.zones[0]))

    def _task_at(self, place: str) -> dict[str, object]:
        envs = {**self.envs, "RUN": self.name}
        return sky_jobs.task_config(self.task, place, envs, self.secrets, self.machines)

    def _leave(self) -> None:
        self.held.job_id, self.held.place, self.held.is_leaving = None, IDLE, False
        self.held.job_name = ""
        self.save()

    def _cancel(self) -> None:
        """Ask until the job has ended. Raises CloudIsAway: the next look goes on with it."""
        record = self._record()
        if record is None and self.held.place != IDLE:
            raise CloudIsAway(f"SkyPilot does not list the launch in {self.held.place} yet")
        if record is None or record.has_ended:
            return
        self.held.is_leaving = True
        self.save()
        began_s = asked_s = self.clock()
        sky_jobs.cancel(record.job_id)
        while not record.has_ended:
            self.sleep(CANCEL_POLL_S)
            record = self._record() or record
            if not record.has_ended and self.clock() - began_s > sky_jobs.CANCEL_LIMIT_S:
                raise CloudIsAway(
                    f"SkyPilot does not end managed job {record.job_id}, which is {record.status}; "
                    "it is asked again"
                )
            if not record.has_ended and self.clock() - asked_s > sky_jobs.CANCEL_AGAIN_S:
                asked_s = self.clock()
                sky_jobs.cancel(record.job_id)

    def _record(self) -> JobRecord | None:
        """Of the present job; one whose launch was under way is looked for by its name.

        SkyPilot lists a job some time after it was asked for: None until then, too.
        """
        held = self.held
        if held.place == IDLE:
            return None
        if held.job_id is None:
            name = held.job_name
            named = [one for one in sky_jobs.queue(name=name) if one.name == name] if name else []
            if not named:
                if self.clock() - held.asked_s > ARRIVAL_S:
                    self._leave()
                return None
            held.job_id = max(one.job_id for one in named)
            self.save()
        records = sky_jobs.queue(job_id=held.job_id)
        if not records:
            raise CriaError(
                f"SkyPilot knows no managed job {held.job_id}, which should run in {held.place}; "
                f"see `sky jobs queue`, or remove {self.out}/launch.json to forget it."
            )
        return records[0]


def _region(zone: str) -> str:
    """Worked example: aws/us-east-1/us-east-1a is in aws/us-east-1, and so is aws/us-east-1."""
    return "/".join(zone.split("/")[:2])
