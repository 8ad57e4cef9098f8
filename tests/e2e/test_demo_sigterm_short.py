"""SIGTERM while the demo starts ends all of it, with 143."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.e2e.demo import is_begun, is_of_group, start, wait_for


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", ["", "apps.data clean"])
def test_sigterm_ends_the_demo_clean(tmp_path: Path, step: str) -> None:
    log = tmp_path / "demo.log"
    demo = start(tmp_path, log.name)
    if step:
        wait_for(step, lambda: is_begun(step, log), demo, log)
    else:
        wait_for("Ray", lambda: len(psutil.Process(demo.pid).children(recursive=True)), demo, log)
    processes = [p for p in psutil.process_iter() if is_of_group(p, demo.pid)]
    os.kill(demo.pid, signal.SIGTERM)
    assert demo.wait(90) == 143, log.read_text()[-3000:]
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive, [p.cmdline() for p in alive]
    said = log.read_text()
    assert "Traceback" not in said, said[-3000:]
