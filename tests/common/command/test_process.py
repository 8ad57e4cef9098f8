import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apps.common.command import interrupt, process

ROOT = Path(__file__).resolve().parents[3]
SLEEP = "import apps.common.command.interrupt, time; time.sleep(60)"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(condition, timeout_s=10.0):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_child_ends_with_its_block():
    with process.child([sys.executable, "-c", SLEEP], os.environ) as child:
        assert child.poll() is None
    assert child.returncode == -signal.SIGINT or child.returncode == 1


def test_a_child_that_ignores_ctrl_c_is_killed_with_its_group(monkeypatch):
    monkeypatch.setattr(process, "_STOP_TIMEOUT_S", 0.3)
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
    )
    with process.child([sys.executable, "-c", code], os.environ) as child:
        time.sleep(0.5)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has the call")
def test_a_child_dies_with_a_killed_parent(tmp_path):
    code = (
        "import os, sys, time; from apps.common.command import process\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "with process.child(sleep, os.environ) as child:\n"
        "    open(sys.argv[1], 'w').write(str(child.pid)); time.sleep(60)"
    )
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", code, str(pid_file)])
    assert wait_until(lambda: pid_file.exists() and pid_file.read_text())
    child_pid = int(pid_file.read_text())
    assert is_alive(child_pid)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not is_alive(child_pid))


@pytest.mark.parametrize(("name", "code"), [("SIGINT", -signal.SIGINT), ("SIGTERM", 143)])
def test_a_signal_during_the_fork_is_not_lost(tmp_path: Path, name: str, code: int) -> None:
    """Python drops what is raised inside the hooks that it runs around a fork."""
    program = (
        "import os, signal, sys; from apps.common.command import process, runtime\n"
        f"os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.{name}))\n"
        "start = process.subprocess.Popen\n"
        "def noted(*args, **settings):\n"
        "    started = start(*args, **settings)\n"
        "    open(sys.argv[1], 'w').write(str(started.pid))\n"
        "    return started\n"
        "process.subprocess.Popen = noted\n"
        f"sleep = [sys.executable, '-c', '{SLEEP}']\n"
        "with runtime.sigterm_ends_the_block(), process.child(sleep, os.environ): print('lost')"
    )
    pid_file = tmp_path / "pid"
    done = subprocess.run(
        [sys.executable, "-c", program, str(pid_file)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "" and done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert not is_alive(int(pid_file.read_text()))


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.02, 0.04, 0.08, 0.12])
def test_a_command_that_is_stopped_while_it_starts_says_one_line(
    tmp_path: Path, after_s: float
) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "apps.serve", "--help"]
    with log.open("wb") as output, process.child(command, os.environ, output) as child:
        time.sleep(after_s)
    assert child.returncode in (-signal.SIGINT, 130), log.read_text()
    assert log.read_text() == f"{interrupt.SENTENCE}\n"


def test_ctrl_c_while_a_command_loads_is_one_line() -> None:
    slow = "import apps.common.command.interrupt, time; print('loads', flush=True); time.sleep(60)"
    command = subprocess.Popen(
        [sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A shell starts what it puts in the background deaf to Ctrl-C, and so these tests.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert command.stdout is not None and command.stdout.readline() == "loads\n"
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=30)
    assert command.returncode == -signal.SIGINT
    assert said == f"{interrupt.SENTENCE}\n"
