"""What a job's end is to SkyPilot, and what a job is called."""

import pytest
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
