"""The demo as a child process of a test."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
DEMO = (
    *("-m", "apps.quickstart", "--no-serve", "--model", "tiny"),
    *("--conversations", "600", "--questions", "4"),
    "--base-args=--tokens 20000",
    "--train-args=--steps 40 --checkpoint.interval-steps 5",
)


def start(folder: Path, log: str) -> subprocess.Popen[bytes]:
    with (folder / log).open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *DEMO],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for(what: str, found: Any, demo: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + 600
    while not found():
        ended = demo.poll() is not None
        assert not ended and time.monotonic() < deadline_s, f"no {what}\n{log.read_text()[-3000:]}"
        time.sleep(0.1)


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in log.read_text().splitlines() if row.startswith("{")]


def is_begun(step: str, log: Path) -> bool:
    return f"$ python -m {step} " in log.read_text()


def is_of_group(process: psutil.Process, group: int) -> bool:
    """The demo and all that it started: none of it leaves the demo's session."""
    try:
        return os.getsid(process.pid) == group
    except ProcessLookupError:
        return False
