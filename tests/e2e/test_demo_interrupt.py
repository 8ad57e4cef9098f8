"""Ctrl-C in every step of `make demo`, one after the other in one folder, then a run to the end."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.demo import events, is_begun, is_of_group, start, wait_for

STEPS = (
    "apps.data sample",
    "apps.train base",
    "apps.data clean",
    "apps.data pack",
    "apps.train run",
    "apps.train export",
    "apps.serve run",
    "apps.eval answer",
    "apps.eval judge",
    "apps.eval report",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ctrl_c_in_any_step_stops_everything_and_the_next_run_goes_on(tmp_path: Path) -> None:
    for number, step in enumerate(STEPS):
        log = tmp_path / f"{number}.log"
        demo = start(tmp_path, log.name)
        wait_for(step, lambda log=log, step=step: is_begun(step, log), demo, log)
        time.sleep(0.5)
        processes = [p for p in psutil.process_iter() if is_of_group(p, demo.pid)]
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(90) == 130, log.read_text()[-3000:]
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert not alive, f"{step} leaves {[p.cmdline() for p in alive]}"
    log = tmp_path / "last.log"
    assert start(tmp_path, log.name).wait(300) == 0, log.read_text()[-3000:]
    assert any(event["event"] == "demo.done" for event in events(log))
    for step in STEPS[:5]:  # each was interrupted once, and done once; two of them side by side
        times = 3 if step in ("apps.train base", "apps.data clean") else 2
        assert sum(is_begun(step, log) for log in tmp_path.glob("*.log")) == times, step
