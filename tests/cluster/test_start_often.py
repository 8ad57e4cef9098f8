"""Head and workers that start at the same moment, twenty times."""

import subprocess
import time
from pathlib import Path

import pytest

from cluster.start_ray import WAIT_S
from tests.cluster.machines import TestMachine, machines


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("first", [1, 6, 11, 16])
def test_twenty_simultaneous_starts_all_join(first: int, tmp_path: Path) -> None:
    """Five at a time, each on machines of its own."""
    with machines(tmp_path, 2) as pair:
        for number in range(first, first + 5):
            began_s = time.monotonic()
            starts = [machine.popen("python", "-m", "cluster.start_ray") for machine in pair]
            outputs = [start.communicate(timeout=WAIT_S + 60)[0] for start in starts]
            assert [start.returncode for start in starts] == [0, 0], "\n".join(outputs)
            assert [machine.raylets() for machine in pair] == [1, 1]
            print(f"start {number}: both in after {time.monotonic() - began_s:.1f} s")
            stop(pair)


def stop(pair: list[TestMachine]) -> None:
    """Both at once, as a cluster that goes; the pause lets ports free."""
    code = "from cluster.start_ray import stop; stop(6379)"
    ends: list[subprocess.Popen[str]] = [machine.popen("python", "-c", code) for machine in pair]
    for end in ends:
        end.wait(60)
    time.sleep(1)
