"""Waiting for the demo's server: as long as it gets on, however busy the machine."""

import subprocess
import time
import urllib.error
import urllib.request

import psutil

from apps.common.command.events import Reporter
from apps.common.errors import CriaError

_STALL_S = 300.0
"""a server that does no work for so long hangs"""
_TELL_EVERY_S = 30.0
_LEAST_WORK_S = 2.0
"""CPU seconds that count as work: an idle Ray takes less than this in _STALL_S"""
_WORKER_PREFIX = "ray::"
"""what the processes of Ray's workers are called, the models' among them"""


def wait_until_ready(url: str, server: subprocess.Popen[bytes], reporter: Reporter) -> None:
    """Return when `url` serves its models; CriaError when the server dies or does nothing more."""
    started_s = told_s = worked_s = time.monotonic()
    work_s = _cpu_s(server.pid)
    while not _is_ready(url):
        if server.poll() is not None:
            raise CriaError(f"The server stopped with exit code {server.returncode}; see above.")
        now_s, done_s = time.monotonic(), _cpu_s(server.pid)
        if done_s - work_s >= _LEAST_WORK_S:
            work_s, worked_s = done_s, now_s
        if now_s - worked_s > _STALL_S:
            raise CriaError(
                f"{url} is not ready and its server has done nothing for {_STALL_S:.0f} s; see the "
                "messages above, and run the demo again: it goes on from there."
            )
        if now_s - told_s > _TELL_EVERY_S:
            told_s = now_s
            waited_s = now_s - started_s
            reporter.line(f"Waiting for the server to load both models ({waited_s:.0f} s so far).")
        time.sleep(0.25)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _cpu_s(pid: int) -> float:
    """CPU seconds of the server's command and of Ray's workers, which load the models."""
    total = 0.0
    for process in psutil.process_iter(["pid", "name", "cmdline", "cpu_times"]):
        info = process.info
        called = (info["cmdline"] or [info["name"] or ""])[0] if info["cmdline"] else ""
        if info["cpu_times"] and (info["pid"] == pid or called.startswith(_WORKER_PREFIX)):
            total += info["cpu_times"].user + info["cpu_times"].system
    return total
