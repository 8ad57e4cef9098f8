"""`python -m tests.eval.node_loss FOLDER NUM_CALLS`: a judging run on three machines loses one.

A process of its own, because it starts Ray's multi-node test cluster. The head runs no tasks, so
that the machine that is lost has calls in flight. Prints the endpoint's counts as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile

os.environ["RAY_AUTH_MODE"] = "disabled"

import psutil
from ray.cluster_utils import Cluster

from benchmarks.judge import endpoint, stats
from tests.eval.test_kill import LIMITS, await_stored


def main(folder: str, num_calls: int) -> None:
    os.makedirs("/tmp/ray", exist_ok=True)  # where Ray notes its address, and does not make it
    with tempfile.TemporaryDirectory(prefix="loss-", dir="/tmp") as temporary:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20, "temp_dir": temporary},
        )
        try:
            nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
            cluster.wait_for_nodes()
            with endpoint(latency_s=0.3) as url:
                lose_one(cluster, nodes, folder, num_calls)
                print(json.dumps(stats(url)))
        finally:
            cluster.shutdown()


def lose_one(cluster: Cluster, nodes: list, folder: str, num_calls: int) -> None:
    command = [sys.executable, "-m", "apps.eval", "judge", folder, "--judge", "judge-4"]
    command += ["--concurrency", "6", "--num-tasks", "3", *LIMITS]
    env = {**os.environ, "RAY_ADDRESS": cluster.address}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        await_stored(folder, num_calls // 3)
        victim = next(node for node in nodes if is_judging(node))
        cluster.remove_node(victim, allow_graceful=False)
        assert process.wait(120) == 0


def is_judging(node) -> bool:
    """Does this machine's raylet have a task of calls among its children?"""
    raylet = node.all_processes["raylet"][0].process.pid
    ours = psutil.Process(raylet).children(recursive=True)
    return any("judge_chunk" in " ".join(child.cmdline()) for child in ours)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
