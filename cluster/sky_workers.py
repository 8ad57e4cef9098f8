"""SkyPilot's managed jobs as a pool's workers: one job a worker, bound to one place.

The name of a job says where it is, so that nothing need be remembered: `worker-aws-us-east-1-3` is
the third worker of `worker`, in aws/us-east-1. SkyPilot itself would start a reclaimed job in the
same place again, forever if need be: such a job is ended, and the policy chooses the place.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apps.common.command.events import Reporter
from apps.common.spot.trace import ON_DEMAND
from cluster import sky_jobs
from cluster.sky_jobs import JobRecord
from cluster.workers import Rented, Worker


@dataclass(kw_only=True, slots=True)
class SkyWorkers:
    """See the head of this file."""

    task: Path
    name: str
    """with which the jobs' names begin"""
    zones: tuple[str, ...]
    envs: Mapping[str, str]
    secrets: tuple[str, ...]
    """names of variables whose values the task is given"""
    reporter: Reporter
    machines: sky_jobs.Machines | None = None
    """those of the task file where nothing is said"""
    clock: Callable[[], float] = time.time
    _leaving: dict[int, float] = field(default_factory=dict[int, float])
    """jobs that were cancelled by us -> when they were last, in Unix time"""
    _alive: set[int] = field(default_factory=set[int])
    """jobs that had not ended at the last look: an older end is known"""
    _seen_s: dict[int, float] = field(default_factory=dict[int, float])
    """since when we know of a job, which SkyPilot may not have begun to start"""
    _told: set[str] = field(default_factory=set[str])
    """jobs of which it was said that nobody here looks after them"""
    _number: int = 0
    """of the newest worker"""
    _rented: list[Rented] = field(default_factory=list[Rented])
    """as of the last look"""

    def workers(self) -> Sequence[Worker]:
        records = [(one, self._place(one.name)) for one in sky_jobs.queue(name=self.name)]
        ours = [(one, place) for one, place in records if place is not None]
        self._cancel_again([one for one, _ in ours])
        self._tell({one.name for one, place in records if place is None and not one.has_ended})
        self._rented = [_rented(one, place) for one, place in ours if one.has_run]
        was_alive, self._alive = self._alive, {one.job_id for one, _ in ours if not one.has_ended}
        seen: list[Worker] = []
        for record, place in ours:
            self._number = max(self._number, int(record.name.rpartition("-")[2]))
            is_new = record.job_id in was_alive | self._alive
            if is_new and record.job_id not in self._leaving and not _is_cancelled(record):
                since_s = self._seen_s.setdefault(record.job_id, self.clock())
                seen.append(_worker(record, place, since_s))
        return seen

    def rented(self) -> Sequence[Rented]:
        """All that SkyPilot remembers, as of the last look: those that have ended, too."""
        return self._rented

    def _tell(self, strangers: set[str]) -> None:
        """Ours of a zone that is no longer given, or another pool's: they are left alone."""
        named = {one for one in strangers if re.fullmatch(rf"{re.escape(self.name)}-.*-\d+", one)}
        if new := named - self._told:
            self._told |= new
            hint = "in none of --zones: left alone; if this pool's, `sky jobs cancel -n NAME`"
            self.reporter.event("workers.elsewhere", jobs=", ".join(sorted(new)), hint=hint)

    def _place(self, name: str) -> str | None:
        """Worked example: aws/us-east-1 for worker-aws-us-east-1-3; None for a stranger's job."""
        slug, _, number = name.removeprefix(f"{self.name}-").rpartition("-")
        slugs = {_slug(place): place for place in (*self.zones, ON_DEMAND)}
        is_ours = name.startswith(f"{self.name}-") and number.isdigit()
        return slugs.get(slug) if is_ours else None

    def check(self) -> None:
        """Raises ConfigError and InputError for a task that could be launched nowhere."""
        sky_jobs.checked(self._task_at(self.zones[0], self.name))

    def _task_at(self, place: str, name: str) -> dict[str, object]:
        envs = {**self.envs, "WORKER": name}
        return sky_jobs.task_config(self.task, place, envs, self.secrets, self.machines)

    def launch(self, place: str) -> None:
        self._number += 1
        name = f"{self.name}-{_slug(place)}-{self._number}"
        job_id = sky_jobs.launch(self._task_at(place, name), name)
        self._alive.add(job_id)
        self._seen_s[job_id] = self.clock()

    def end(self, worker: Worker) -> None:
        for record in sky_jobs.queue(name=worker.name):
            if record.name == worker.name and not record.has_ended:
                sky_jobs.cancel(record.job_id)
                self._leaving[record.job_id] = self.clock()

    def _cancel_again(self, records: Sequence[JobRecord]) -> None:
        """What SkyPilot was told to end and did not would be paid for and never looked at."""
        for record in records:
            asked_s = self._leaving.get(record.job_id)
            if asked_s is None or record.has_ended:
                continue
            if self.clock() - asked_s > sky_jobs.CANCEL_AGAIN_S:
                sky_jobs.cancel(record.job_id)
                self._leaving[record.job_id] = self.clock()


def _slug(place: str) -> str:
    return place.replace("/", "-")


def _rented(record: JobRecord, place: str) -> Rented:
    """A start that came is paid from its beginning, as `launch.py` counts it."""
    assert record.starts_s is not None
    return Rented(place=place, begun_s=record.starts_s, ended_s=record.end_s)


def _is_cancelled(record: JobRecord) -> bool:
    """By whom ever; what ends by itself with 0 was told to leave, too."""
    return record.status in ("CANCELLING", "CANCELLED", "SUCCEEDED")


def _worker(record: JobRecord, place: str, seen_s: float) -> Worker:
    """Raises CriaError for a job that no other machine would help."""
    is_taken = record.status in sky_jobs.TAKEN
    if record.has_ended and not is_taken:
        raise sky_jobs.failure(record, place)
    return Worker(
        name=record.name,
        place=place,
        asked_s=seen_s if record.starts_s is None else record.starts_s,
        has_run=record.has_run,
        is_taken=is_taken,
    )
