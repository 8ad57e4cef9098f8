"""`python -m tests.train.drain RUN.yaml STEP`: a run on a cluster of three machines loses one.

A process of its own, because it starts Ray's multi-node test cluster. It prints what the training
command prints.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "disabled"


from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from apps.common.files import config as configs
from apps.train.config import RunConfig
from tests.train.chaos import finish, is_rank, running, wait_for_step

NOTICE_S = 12


def main(settings: str, step: int) -> None:
    config = configs.load(RunConfig, settings)
    with tempfile.TemporaryDirectory(prefix="drain-", dir="/tmp") as folder:
        # Where Ray notes the newest cluster's address; by default for the whole machine.
        os.environ["RAY_TMPDIR"] = folder
        os.makedirs(os.path.join(folder, "ray"))
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20, "temp_dir": folder},
        )
        try:
            nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(3)]
            cluster.wait_for_nodes()
            lose_one(cluster, nodes, config, step)
        finally:
            cluster.shutdown()


def lose_one(cluster: Cluster, nodes: list, config: RunConfig, step: int) -> None:
    log = Path(config.out).parent / "command.log"
    environ = {"RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
    with running(config, log, **environ) as process:
        wait_for_step(config, step, process)
        victim = next(node for node in nodes if has_rank(node))
        deadline_ms = int((time.time() + NOTICE_S) * 1000)
        accepted, why = GcsClient(address=cluster.address).drain_node(
            victim.node_id,
            DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "the machine is reclaimed",
            deadline_ms,
        )
        assert accepted, why
        time.sleep(NOTICE_S)
        cluster.remove_node(victim, allow_graceful=False)
        finish(process, log)
    print(log.read_text())


def has_rank(node) -> bool:
    """Does this machine's raylet have a rank among its children?"""
    import psutil

    raylet = node.all_processes["raylet"][0].process.pid
    return any(is_rank(p) for p in psutil.Process(raylet).children(recursive=True))


def stop(number: int, frame: object) -> None:
    """End by way of `finally`, which a second signal must not cut short."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    sys.exit(1)


if __name__ == "__main__":
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    main(sys.argv[1], int(sys.argv[2]))
