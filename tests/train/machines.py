"""`python -m tests.train.machines RUN.yaml drain|lose|keyless STEP`: a run on Ray's test cluster.

drain: three machines; one of a rank is announced to go after STEP, and goes.
lose: the same, unannounced.
keyless: one machine that knows no keys of the bucket; the command knows them. STEP has no meaning.

A process of its own, because it starts the cluster. It prints what the training command prints.
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
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def main(settings: str, what: str, step: int) -> None:
    config = configs.load(RunConfig, settings)
    keys = {k: os.environ.pop(k) for k in KEYS if k in os.environ}
    with tempfile.TemporaryDirectory(prefix="machines-", dir="/tmp") as folder:
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
            log = Path(settings).with_suffix(".log")
            environ = {"RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled", **keys}
            with running(config, log, **environ) as process:
                if what == "keyless":
                    process.wait()
                else:
                    wait_for_step(config, step, process)
                    victim = next(node for node in nodes if has_rank(node))
                    if what == "drain":
                        drain(cluster, victim)
                    cluster.remove_node(victim, allow_graceful=False)
                    finish(process, log)
            print(log.read_text())
        finally:
            cluster.shutdown()


def drain(cluster: Cluster, victim) -> None:
    deadline_ms = int((time.time() + NOTICE_S) * 1000)
    accepted, why = GcsClient(address=cluster.address).drain_node(
        victim.node_id,
        DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "the machine is reclaimed",
        deadline_ms,
    )
    assert accepted, why
    time.sleep(NOTICE_S)


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
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
