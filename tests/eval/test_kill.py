"""kill -9 of the command or of a task's process: what is stored is never asked for again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from apps.common.command.cli import run
from apps.eval.__main__ import COMMANDS
from apps.eval.calls import journal
from apps.eval.protocols.parsing import parse_record
from benchmarks.judge import endpoint, folder, stats, unanswered

CALLS = 60
NOT_STORED = 2 * 6
"""of 6 places: with the endpoint, or answered and on their way to the disk"""
LIMITS = ["--self-checks", "0", "--no-canaries", "--max-usd", "50"]
LIMITS += ["--requests-per-min", "1e6", "--tokens-per-min", "1e9"]
LIMITS += ["--usd-per-million-prompt-tokens", "30", "--usd-per-million-completion-tokens", "60"]


def await_stored(folder: str, count: int) -> set[str]:
    """The keys on disk as soon as there are so many."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        stored = {record["key"] for record in journal.read_raw(folder)}
        if len(stored) >= count:
            return stored
        time.sleep(0.02)
    raise AssertionError(f"fewer than {count} responses within 90 s")


def task_processes() -> list[psutil.Process]:
    """The processes of this test's Ray that run a chunk of calls now."""
    ours = psutil.Process().children(recursive=True)
    return [p for p in ours if p.is_running() and "judge_chunk" in " ".join(p.cmdline())]


@pytest.mark.ray
def test_a_task_that_dies_with_its_process_is_run_again_without_what_is_stored(
    tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(str(tmp_path), CALLS)
    killed: list[set[str]] = []

    def kill_one() -> None:
        stored = await_stored(str(tmp_path), CALLS // 3)
        task_processes()[0].kill()
        killed.append(stored)

    with endpoint(latency_s=1.0) as url:
        killer = threading.Thread(target=kill_one)
        killer.start()
        command = ["judge", str(tmp_path), "--judge", "judge-4", "--concurrency", "6"]
        assert run("apps.eval", COMMANDS, [*command, "--num-tasks", "2", *LIMITS]) == 0
        killer.join()
        found = stats(url)
    (stored,) = killed
    records = journal.read_raw(str(tmp_path))
    assert len(stored) < CALLS and stored <= {record["key"] for record in records}
    assert len({record["key"] for record in records}) == len(records) == CALLS
    assert found["served_twice"] <= len(unanswered(str(tmp_path))) <= NOT_STORED


@pytest.mark.ray
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, ray_session) -> None:
    folder(str(tmp_path), CALLS)
    command = [sys.executable, "-m", "apps.eval", "judge", str(tmp_path), "--judge", "judge-4"]
    command += ["--concurrency", "6", *LIMITS]
    with endpoint(latency_s=0.3) as url:
        env = {**os.environ, **ray_session.child_env()}
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        await_stored(str(tmp_path), CALLS // 3)
        process.kill()
        process.wait()
        stored = {record["key"] for record in journal.read_raw(str(tmp_path))}
        assert len(stored) < CALLS
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found = stats(url)
    records = journal.read_raw(str(tmp_path))
    assert len({record["key"] for record in records}) == len(records) == CALLS
    assert stored <= {record["key"] for record in records}
    assert all(parse_record(record)["status"] == "ok" for record in records)
    in_doubt = unanswered(str(tmp_path))
    assert found["served_twice"] <= len(in_doubt) <= NOT_STORED
    assert run("apps.eval", COMMANDS, ["report", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "report.json").read_text())["unanswered"]
    assert told == {"calls": len(in_doubt), "usd": pytest.approx(sum(in_doubt.values()))}
    shown = "calls more brought no reply" in (tmp_path / "report.html").read_text()
    assert shown == bool(in_doubt)


@pytest.mark.ray
def test_an_interrupted_run_keeps_what_is_in_flight(tmp_path: Path, ray_session) -> None:
    """It is paid for: the tasks' processes were killed over it."""
    folder(str(tmp_path), CALLS)
    command = [sys.executable, "-m", "apps.eval", "judge", str(tmp_path), "--judge", "judge-4"]
    command += ["--concurrency", "6", "--num-tasks", "2", *LIMITS]
    with endpoint(latency_s=1.0) as url:
        env = {**os.environ, **ray_session.child_env()}
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        await_stored(str(tmp_path), CALLS // 5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert len(journal.read_raw(str(tmp_path))) == stats(url)["served"] < CALLS
    assert not unanswered(str(tmp_path))


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_that_loses_a_machine_repeats_only_what_was_in_flight(tmp_path: Path) -> None:
    folder(str(tmp_path), CALLS)
    command = [sys.executable, "-m", "tests.eval.node_loss", str(tmp_path), str(CALLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    records = journal.read_raw(str(tmp_path))
    assert len({record["key"] for record in records}) == len(records) == CALLS
    assert found["served_twice"] <= len(unanswered(str(tmp_path))) <= NOT_STORED
