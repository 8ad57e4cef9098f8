"""Head and workers that start at the same moment, twenty times."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.machines import TestMachine, machines


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_twenty_simultaneous_starts_all_join(tmp_path: Path) -> None:
    with machines(tmp_path, 2) as pair:
        for _ in range(20):
            starts = [machine.popen("python", "-m", "cluster.start_ray") for machine in pair]
            codes = [start.wait(200) for start in starts]
            assert codes == [0, 0]
            assert [machine.raylets() for machine in pair] == [1, 1]
            stop(pair)


def stop(pair: list[TestMachine]) -> None:
    """Both at once, as a cluster that goes; the pause lets ports free."""
    code = "from cluster.start_ray import stop; stop(6379)"
    ends: list[subprocess.Popen[str]] = [machine.popen("python", "-c", code) for machine in pair]
    for end in ends:
        end.wait(60)
    time.sleep(1)
