"""Ray's start on a machine that is too busy for it."""

import signal
import time
from pathlib import Path

import pytest

from tests.common.command.slow_ray import left_over, raylet, start


@pytest.mark.slow
@pytest.mark.ray
def test_a_start_that_takes_longer_than_rays_30_s_succeeds_and_says_so(tmp_path: Path) -> None:
    process = start(raylet(tmp_path, "sleep 40"))
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0 and "CPUs: 1" in out
    assert "Ray is still starting after 20 s" in err and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.ray
def test_a_start_that_fails_is_tried_once_more_in_a_fresh_folder(tmp_path: Path) -> None:
    fails_once = f"if [ ! -e {tmp_path}/tried ]; then touch {tmp_path}/tried; exit 1; fi"
    process = start(raylet(tmp_path, fails_once), wait_s=5)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0 and "CPUs: 1" in out
    assert err.count("it is tried once more") == 1


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("after_s", [0.5, 4.0])
def test_sigterm_while_ray_starts_ends_it_all(tmp_path: Path, after_s: float) -> None:
    script = raylet(tmp_path, "sleep 1000")
    process = start(script)
    assert process.stdout and process.stdout.readline() == "starting\n"
    time.sleep(after_s)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in err
    assert not left_over(script)
