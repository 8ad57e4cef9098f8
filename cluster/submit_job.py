"""Submits one command as a Ray job, follows it, and returns what happened to it as an exit code.

    python -m cluster.submit_job -- python -m apps.data clean ...     # cluster/run_ray.sh calls it

`ray job submit` itself ends with 1 whatever the command's own code was, so that SkyPilot would
start new machines for a misspelt setting. Here: 0 done; 2 bad input, never tried again; 75 a
machine of the cluster was lost or is being reclaimed; 143 cancelled; 1 failed otherwise, after
--tries attempts on these machines (a run goes on from where it stopped). A dashboard that does not
answer for a moment ends nothing; one that is silent for SILENCE_S is 75 where a machine was lost
too, else 1.

Ctrl-C and SIGTERM stop the job. With CRIA_LOGS=s3://bucket/folder this machine's logs are put there
at the end (cluster/ship_logs.py).
"""

import argparse
import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar, cast

import aiohttp
import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

from apps.common.errors import first_line
from cluster import ship_logs
from cluster.start_ray import LOST_MACHINE, num_alive, this_machine

BAD_INPUT = 2
CANCELLED = 143
RUNTIME_ENV = Path(__file__).with_name("runtime_env.yaml")
SUBMITS = 10
"""attempts to reach a Ray that has just begun, 3 s apart"""
SETTLE_S = 30.0
"""Ray takes so long to call a machine lost that does not answer"""
SILENCE_S = 300.0
"""a dashboard that gives no job's status for so long does not come back"""
BROKEN = (RuntimeError, OSError, aiohttp.ClientError)
"""what a dashboard that is away or starting makes of a request; those of requests are OSErrors"""
T = TypeVar("T")


class Cancelled(Exception):
    """SkyPilot, or a person, ends the task."""


class NoAgent(Exception):
    """No machine of this Ray takes jobs."""


class Silent(Exception):
    """The dashboard does not say what became of a job, which may go on: no second one is begun."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How one attempt ended."""

    status: JobStatus
    exit_code: int | None
    """of the command; None when it never ran or Ray lost it"""
    message: str


def job_name(command: Sequence[str]) -> str:
    """`data-clean` of `python -m apps.data clean ...`, else the program's name.

    The dashboard lists jobs by it.
    """
    words = list(command)
    if "-m" in words[:-1]:
        at = words.index("-m") + 1
        module, rest = words[at].removeprefix("apps."), words[at + 1 :]
        verb = [rest[0]] if rest and not rest[0].startswith("-") else []
        return "-".join([module, *verb])
    return Path(words[0]).name


def outcome(ended: Ended, *, notice: bool, lost_machine: Callable[[], bool]) -> int:
    """The exit code that SkyPilot is given."""
    if ended.status == JobStatus.SUCCEEDED:
        return 0
    if ended.status == JobStatus.STOPPED:
        return CANCELLED
    if ended.exit_code == BAD_INPUT:
        return BAD_INPUT
    return LOST_MACHINE if notice or lost_machine() else 1


def run(client: JobSubmissionClient, command: Sequence[str]) -> Ended:
    """Submit, print what the command prints, and wait for its end."""
    job_id = _submit(client, command)
    say(f"job {job_id} runs; Ctrl-C stops it. Its page: the dashboard, under Jobs")
    try:
        asyncio.run(_follow(client, job_id))
    except (Cancelled, KeyboardInterrupt):
        say(f"stopping job {job_id}")
        try:
            client.stop_job(job_id)
        except BROKEN as error:
            say(f"the dashboard does not take that ({first_line(error)})")
        raise Cancelled from None
    info = _answer(lambda: client.get_job_info(job_id))
    return Ended(
        status=cast(JobStatus, info.status),
        exit_code=info.driver_exit_code,
        message=info.message or "",
    )


def connect(url: str) -> JobSubmissionClient:
    """A dashboard that is just up may not listen yet. Raises NoAgent."""
    for attempt in range(SUBMITS):
        try:
            return JobSubmissionClient(url)
        except BROKEN as error:
            _wait_for_ray(attempt, error)
    raise AssertionError("the last attempt raises")


def _submit(client: JobSubmissionClient, command: Sequence[str]) -> str:
    """A Ray that is just up may have no agent yet that takes jobs. Raises NoAgent.

    A request whose answer was lost may have begun the job: it is looked for before the next.
    """
    runtime_env = yaml.safe_load(RUNTIME_ENV.read_text())
    name = job_name(command)
    began = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    for attempt in range(SUBMITS):
        job_id = f"{name}-{began}-{os.getpid()}-{attempt}"
        try:
            return client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=job_id,
                runtime_env=runtime_env,
                metadata={"name": name},
            )
        except BROKEN as error:
            if not isinstance(error, RuntimeError) and _is_known(client, job_id):
                return job_id
            _wait_for_ray(attempt, error)
    raise AssertionError("the last attempt raises")


def _wait_for_ray(attempt: int, error: Exception) -> None:
    if attempt == SUBMITS - 1:
        raise NoAgent from error
    say(f"Ray takes no job yet ({first_line(error)})")
    time.sleep(3)


def _is_known(client: JobSubmissionClient, job_id: str) -> bool:
    return any(job.submission_id == job_id for job in _answer(client.list_jobs))


async def _follow(client: JobSubmissionClient, job_id: str) -> None:
    """What the command prints, until it has ended; a connection that breaks is made again.

    Raises Silent.
    """
    shown, said = 0, ""
    while True:
        at = 0
        try:
            async for text in client.tail_job_logs(job_id):
                at += len(text)
                if at > shown:
                    print(text[-(at - shown) :], end="", flush=True)
                    shown = at
        except BROKEN as error:
            if (cause := first_line(error)) != said:
                said = cause
                say(f"the connection to the job's output broke ({said}); it is made again")
        if _answer(lambda: client.get_job_status(job_id)).is_terminal():
            return
        await asyncio.sleep(1)


def _answer(ask: Callable[[], T]) -> T:
    """What the dashboard says, asked again while it is away. Raises Silent."""
    deadline_s = time.monotonic() + SILENCE_S
    while True:
        try:
            return ask()
        except BROKEN as error:
            if time.monotonic() >= deadline_s:
                say(f"the dashboard has been silent for {SILENCE_S:.0f} s ({first_line(error)})")
                raise Silent from error
        time.sleep(1)


def lost_machine() -> bool:
    """Whether fewer machines than SkyPilot gave are alive, once Ray has had time to see it."""
    machine = this_machine(os.environ)
    deadline_s = time.monotonic() + (SETTLE_S if machine.num_machines > 1 else 0)
    while num_alive(machine) >= machine.num_machines:
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(1)
    return machine.num_machines > 1


def attempts(client: JobSubmissionClient, command: Sequence[str], tries: int, notice: Path) -> int:
    """The exit code of the last of at most `tries` attempts; only a plain failure has a next."""
    for left in reversed(range(tries)):
        try:
            ended = run(client, command)
        except Silent:
            return LOST_MACHINE if notice.exists() or lost_machine() else 1
        code = outcome(ended, notice=notice.exists(), lost_machine=lost_machine)
        if code:
            say(f"the job ended: {ended.status.value.lower()}, exit code {ended.exit_code}")
        if ended.exit_code is None and ended.message:
            say(ended.message.strip()[-1000:])
        if code != 1 or not left:
            return code
        say(f"it is tried again here, at most {left} more times")
    raise AssertionError("--tries is at least 1")


def say(text: str) -> None:
    print(f"submit_job: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="submit_job", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--notice-file", type=Path, default=Path.home() / ".cria-spot-notice")
    parser.add_argument("--tries", type=int, choices=range(1, 11), default=3, metavar="1..10")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()

    def cancel(number: int, frame: FrameType | None) -> NoReturn:
        raise Cancelled

    signal.signal(signal.SIGTERM, cancel)
    try:
        client = connect(f"http://127.0.0.1:{this_machine(os.environ).dashboard_port}")
        return attempts(client, args.command, args.tries, args.notice_file)
    except (Cancelled, KeyboardInterrupt):
        return CANCELLED
    except NoAgent:
        say("Ray took no job in ten attempts: its agent is not up; dashboard_agent.log says why.")
        say("Where another's Ray has its port, set RAY_DASHBOARD_AGENT_LISTEN_PORT to a free one.")
        return 1
    finally:
        ship_logs.ship(os.environ.get("CRIA_LOGS", ""))


if __name__ == "__main__":
    sys.exit(main())
