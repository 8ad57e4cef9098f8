"""What a job's end is to SkyPilot, and what a job is called."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
import requests
from ray.job_submission import JobStatus

from cluster import submit_job
from cluster.submit_job import Ended, job_name, outcome


def ended(status: JobStatus, exit_code: int | None) -> Ended:
    return Ended(status=status, exit_code=exit_code, message="")


@pytest.mark.parametrize(
    ("status", "exit_code", "notice", "lost", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, False, False, 0),
        (JobStatus.SUCCEEDED, 0, True, True, 0),  # what is done is not done again
        (JobStatus.FAILED, 1, False, False, 1),
        (JobStatus.FAILED, 1, False, True, 75),
        (JobStatus.FAILED, 1, True, False, 75),
        (JobStatus.FAILED, None, False, True, 75),  # Ray lost the driver itself
        (JobStatus.FAILED, -9, False, False, 1),  # killed for its memory
        (JobStatus.FAILED, 2, False, False, 2),
        (JobStatus.FAILED, 2, True, True, 2),  # a typo is one on every machine
        (JobStatus.STOPPED, None, False, False, 143),
        (JobStatus.STOPPED, 143, True, True, 143),
    ],
)
def test_each_end_has_its_exit_code(
    status: JobStatus, exit_code: int | None, notice: bool, lost: bool, expected: int
) -> None:
    code = outcome(ended(status, exit_code), notice=notice, lost_machine=lambda: lost)
    assert code == expected


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python -m apps.data clean dump.json --out x", "data-clean"),
        ("python -W ignore -m apps.train run --preset debug", "train-run"),
        ("python -m apps.data --help", "data"),
        ("python -m pytest", "pytest"),
        ("/usr/bin/python script.py -m", "python"),
        ("nvidia-smi", "nvidia-smi"),
    ],
)
def test_a_job_is_named_by_what_it_does(command: str, name: str) -> None:
    assert job_name(command.split()) == name


class NoJobs:
    """A Ray whose agent never comes up."""

    def __init__(self, url: str) -> None: ...

    def submit_job(self, **job: object) -> str:
        raise RuntimeError("Request failed with status code 500: No available agent")


def test_a_ray_that_takes_no_job_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit_job, "JobSubmissionClient", NoJobs)
    monkeypatch.setattr(submit_job.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(submit_job.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr("sys.argv", ["submit_job", "--", "python", "-m", "apps.data", "clean"])
    assert submit_job.main() == 1
    assert "RAY_DASHBOARD_AGENT_LISTEN_PORT" in capsys.readouterr().err


class Breaking:
    """A dashboard whose answers fail `times` times, while the job goes on and succeeds."""

    def __init__(self, broken: dict[str, Exception], times: int = 1) -> None:
        self.broken, self.left, self.jobs = broken, dict.fromkeys(broken, times), list[str]()
        self.has_told_all = False

    def _maybe(self, call: str) -> None:
        if self.left.get(call):
            self.left[call] -= 1
            raise self.broken[call]

    def submit_job(self, *, submission_id: str, **job: object) -> str:
        self.jobs.append(submission_id)
        self._maybe("submit")
        return submission_id

    def list_jobs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(submission_id=job) for job in self.jobs]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield "step 1\n"
        self._maybe("tail")
        yield "step 2\n"
        self.has_told_all = True

    def get_job_status(self, job_id: str) -> JobStatus:
        self._maybe("status")
        return JobStatus.SUCCEEDED if self.has_told_all else JobStatus.RUNNING

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        self._maybe("info")
        return SimpleNamespace(status=JobStatus.SUCCEEDED, driver_exit_code=0, message="")

    def stop_job(self, job_id: str) -> None:
        self._maybe("stop")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second that is waited is one on the clock, and over at once."""
    now = [0.0]

    async def pause(seconds: float) -> None:
        now[0] += seconds

    def wait(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(
        submit_job, "time", SimpleNamespace(**{**vars(submit_job.time), "sleep": wait})
    )
    monkeypatch.setattr(submit_job.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        submit_job, "asyncio", SimpleNamespace(run=submit_job.asyncio.run, sleep=pause)
    )


def follow(client: Breaking, notice: Path = Path("/nonexistent")) -> int:
    return submit_job.attempts(client, ["python", "-m", "apps.train", "run"], 3, notice)  # pyright: ignore[reportArgumentType]


REFUSED = requests.ConnectionError("refused")


@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("tail", RuntimeError("closed")),
        ("tail", aiohttp.ServerDisconnectedError()),
        ("tail", aiohttp.ClientPayloadError("status 500")),
        ("tail", REFUSED),
        ("status", REFUSED),
        ("status", requests.Timeout("slow")),
        ("status", RuntimeError("Request failed with status code 500")),
        ("info", REFUSED),
    ],
)
def test_a_dashboard_that_is_away_for_a_while_ends_no_job(
    call: str, error: Exception, times: int, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Breaking({call: error}, times)
    assert follow(client) == 0
    out, err = capsys.readouterr()
    assert (out, len(client.jobs)) == ("step 1\nstep 2\n", 1)
    assert err.count("broke") == (call == "tail")


@pytest.mark.parametrize(("lost", "expected"), [(True, 75), (False, 1)])
@pytest.mark.parametrize("call", ["status", "info"])
def test_one_that_stays_away_is_a_lost_machine_or_a_failure_and_no_second_job(
    call: str, lost: bool, expected: int, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit_job, "lost_machine", lambda: lost)
    client = Breaking({call: REFUSED}, 10**6)
    assert (follow(client), len(client.jobs)) == (expected, 1)


def test_one_that_stays_away_after_a_notice_is_a_lost_machine(quick: None, tmp_path: Path) -> None:
    assert follow(Breaking({"status": REFUSED}, 10**6), tmp_path) == 75


@pytest.mark.parametrize(("error", "jobs"), [(REFUSED, 1), (RuntimeError("No available agent"), 2)])
def test_a_job_whose_submission_had_no_answer_is_not_submitted_twice(
    error: Exception, jobs: int, quick: None
) -> None:
    client = Breaking({"submit": error})
    assert (follow(client), len(client.jobs)) == (0, jobs)


def test_a_cancelled_job_is_cancelled_also_where_the_dashboard_is_away(quick: None) -> None:
    client = Breaking({"tail": submit_job.Cancelled(), "stop": REFUSED})
    with pytest.raises(submit_job.Cancelled):
        follow(client)


def test_a_dashboard_that_does_not_listen_yet_is_asked_again(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def first_refused(url: str) -> str:
        asked.append(url)
        if len(asked) == 1:
            raise ConnectionError("Failed to connect to Ray")
        return url

    monkeypatch.setattr(submit_job, "JobSubmissionClient", first_refused)
    assert submit_job.connect("http://127.0.0.1:1") == "http://127.0.0.1:1"
