"""SkyPilot's calls that the launcher makes, on a clock and with zones that have machines or not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from apps.common.spot.trace import ON_DEMAND


@dataclass
class FakeJob:
    """A managed job, as the queue tells of it."""

    number: int
    name: str
    place: str
    asked_s: float
    status: str = "PENDING"
    submitted_at: float | None = None
    start_at: float | None = None
    end_at: float | None = None
    failure_reason: str = ""

    def record(self) -> dict[str, Any]:
        return {
            "job_id": self.number, "job_name": self.name, "status": self.status,
            "submitted_at": self.submitted_at, "start_at": self.start_at, "end_at": self.end_at,
            "failure_reason": self.failure_reason or None,
        }  # fmt: skip


@dataclass
class Clock:
    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class FakeZones:
    """Which places have machines; a job runs there a minute after it was asked for.

    SkyPilot begins with it some seconds before, and says only then when it was submitted.
    """

    clock: Clock
    empty: set[str] = field(default_factory=set)
    jobs: list[FakeJob] = field(default_factory=list)
    tasks: list[Mapping[str, Any]] = field(default_factory=list)
    """what each of them was launched with"""
    is_busy: bool = False
    """SkyPilot begins with no further job."""

    def look(self) -> None:
        for job in self.jobs:
            begins_s, runs_s = job.asked_s + 20, job.asked_s + 60
            if job.status == "PENDING" and not self.is_busy and self.clock() >= begins_s:
                job.status, job.submitted_at = "STARTING", begins_s
            if job.status == "STARTING" and job.place not in self.empty:
                if self.clock() >= runs_s:
                    job.status, job.start_at = "RUNNING", runs_s
            elif job.status == "CANCELLING":
                job.status, job.end_at = "CANCELLED", self.clock()

    @property
    def alive(self) -> list[FakeJob]:
        ended = ("SUCCEEDED", "CANCELLED", "FAILED")
        return [job for job in self.jobs if not job.status.startswith(ended)]


class FakeSky(ModuleType):
    """Every request is answered at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("sky")
        self.zones = FakeZones(clock)
        self.before_answer: Callable[[str], None] = lambda call: None
        self.Task = SimpleNamespace(from_yaml_config=lambda config: config)
        self.jobs = SimpleNamespace(launch=self._launch, cancel=self._cancel, queue_v2=self._queue)
        self.exceptions = SimpleNamespace(
            ApiServerConnectionError=ConnectionError, ClusterNotUpError=InterruptedError,
            ServerTemporarilyUnavailableError=BlockingIOError,
            RequestInterruptedError=ChildProcessError, RequestCancelled=BrokenPipeError,
        )  # fmt: skip

    def get(self, request: tuple[str, Callable[[], object]]) -> object:
        """The call is made; what `before_answer` does to its answer is up to the test."""
        name, call = request
        answer = call()
        self.before_answer(name)
        return answer

    def _launch(self, task: Mapping[str, Any], name: str) -> object:
        def launch() -> object:
            resources = task["resources"]
            place = resources["infra"] if resources["use_spot"] else ON_DEMAND
            number = len(self.zones.jobs) + 1
            self.zones.tasks.append(task)
            self.zones.jobs.append(FakeJob(number, name, place, self.zones.clock()))
            return [number], None

        return "launch", launch

    def _cancel(self, job_ids: list[int], graceful: bool) -> object:
        def cancel() -> object:
            for job in self.zones.alive:
                if job.number in job_ids:
                    job.status = "CANCELLING"
            return None

        return "cancel", cancel

    def _queue(
        self, refresh: bool, job_ids: list[int] | None, name_match: str | None, fields: list[str]
    ) -> object:
        def queue() -> object:
            self.zones.look()
            found = [
                job.record() for job in self.zones.jobs
                if (job_ids is None or job.number in job_ids)
                and (name_match is None or name_match in job.name)
            ]  # fmt: skip
            return [{name: one[name] for name in fields} for one in found], len(found), {}, 0

        return "queue", queue
