"""Head and workers that start at the same moment, again and again, by `cluster/run_ray.sh` itself.

CRIA_STARTS=20 pytest -s tests/cluster/test_start_often.py
"""

import os
import time
from pathlib import Path

import pytest

from tests.cluster.machines import TestMachine, machines

NUM_STARTS = int(os.environ.get("CRIA_STARTS", "3"))
LOOK = "import ray; ray.init(log_to_driver=False); print('NODES', len(ray.nodes()))"
WAIT_S = 400.0


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(int(NUM_STARTS * WAIT_S))
def test_simultaneous_starts_all_join(tmp_path: Path) -> None:
    with machines(tmp_path, 2) as pair:
        for number in range(1, NUM_STARTS + 1):
            began_s = time.monotonic()
            starts = [machine.run_ray("python", "-c", LOOK) for machine in pair]
            outputs = [start.communicate(timeout=WAIT_S)[0] for start in starts]
            assert [start.returncode for start in starts] == [0, 0], "\n".join(outputs)
            assert "NODES 2" in outputs[0]
            assert [machine.raylets() for machine in pair] == [1, 1]
            print(f"start {number}: both in after {time.monotonic() - began_s:.1f} s", flush=True)
            stop(pair)


def stop(pair: list[TestMachine]) -> None:
    """Both at once, as a cluster that goes; the pause lets ports free."""
    code = "from cluster.start_ray import stop; stop(6379)"
    for end in [machine.popen("python", "-c", code) for machine in pair]:
        end.communicate(timeout=60)
    time.sleep(1)
