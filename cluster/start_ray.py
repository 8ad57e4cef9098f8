"""Brings this machine into our own Ray, beside SkyPilot's: one Raylet, however often it is called.

    python -m cluster.start_ray        # on every node, in any order; cluster/run_ray.sh calls it

Reads SKYPILOT_NODE_RANK, SKYPILOT_NODE_IPS, SKYPILOT_NUM_NODES and SKYPILOT_NUM_GPUS_PER_NODE, and
the settings RAY_HEAD_PORT, RAY_DASHBOARD_PORT, RAY_DASHBOARD_AGENT_LISTEN_PORT, CRIA_RAY_TEMP
(Ray's folder, /tmp/ray otherwise) and CRIA_RAY_SPILL (where objects go that do not fit in memory,
in Ray's folder otherwise).

A worker joins once the head has published the environment that it was started with: a relaunch
with another token or key starts Ray anew on every machine, because the processes of a job inherit
what their Raylet was started with. SkyPilot's own start_cluster is not used: it looks for a head on
the worker's own address, so that a second call starts a second Raylet there.

Exit code: 0 this machine is in, and on the head all of them; 75 another machine did not come in
time; 1 this one's own `ray start` fails, as it would on other machines, too.
"""

import contextlib
import fcntl
import fnmatch
import hashlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from cluster.spot_watch import find_ray_node, own_processes

FAILED = 1
LOST_MACHINE = 75
"""the exit code for which the cluster files ask SkyPilot for another machine"""
WAIT_S = 300.0
INHERITED = (
    *("*_TOKEN", "*_KEY", "*_KEY_ID", "*SECRET*", "*_PASSWORD"),
    *("AWS_*", "GOOGLE_*", "AZURE_*", "HF_*", "NCCL_*", "GLOO_*", "CRIA_*"),
    *("WANDB_*", "MLFLOW_*"),
)
"""variables that a job's processes read: others differ from shell to shell"""
ENVIRONMENT_KEY = b"cria-environment"


class Gcs(Protocol):
    """The part of Ray's key-value store that is used here."""

    def internal_kv_get(self, key: bytes, namespace: bytes, timeout: float) -> bytes | None: ...

    def internal_kv_put(
        self, key: bytes, value: bytes, overwrite: bool, namespace: bytes, timeout: float
    ) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """This machine's place in the cluster."""

    rank: int
    num_machines: int
    num_gpus: int
    head_address: str
    """host:port of the head's Ray"""
    dashboard_port: int
    agent_port: int
    """where this machine takes jobs; SkyPilot's own Ray has the usual 52365"""
    temp_dir: str
    spill_dir: str

    @property
    def is_head(self) -> bool:
        return self.rank == 0

    @property
    def gcs_port(self) -> int:
        return int(self.head_address.rpartition(":")[2])

    def start_command(self) -> list[str]:
        """`ray start` with what belongs to this machine."""
        place = ["--address", self.head_address]
        if self.is_head:
            place = ["--head", "--port", str(self.gcs_port), "--include-dashboard", "true"]
            place += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(self.dashboard_port)]
        gpus = ["--num-gpus", str(self.num_gpus)] if self.num_gpus else []
        temp = ["--temp-dir", self.temp_dir] if self.temp_dir else []
        spill = ["--object-spilling-directory", self.spill_dir] if self.spill_dir else []
        agent = ["--dashboard-agent-listen-port", str(self.agent_port), "--disable-usage-stats"]
        return ["ray", "start", *place, *agent, *gpus, *temp, *spill]


def this_machine(env: Mapping[str, str]) -> Machine:
    """As SkyPilot's variables say; one machine alone without them."""
    head = env.get("SKYPILOT_NODE_IPS", "").split() or ["127.0.0.1"]
    rank = int(env.get("SKYPILOT_NODE_RANK") or 0)
    return Machine(
        rank=rank,
        num_machines=int(env.get("SKYPILOT_NUM_NODES") or 1),
        num_gpus=int(env.get("SKYPILOT_NUM_GPUS_PER_NODE") or 0),
        head_address=f"{head[0] if rank else '127.0.0.1'}:{env.get('RAY_HEAD_PORT') or 6379}",
        dashboard_port=int(env.get("RAY_DASHBOARD_PORT") or 8265),
        agent_port=int(env.get("RAY_DASHBOARD_AGENT_LISTEN_PORT") or 52366),
        temp_dir=env.get("CRIA_RAY_TEMP", ""),
        spill_dir=env.get("CRIA_RAY_SPILL", ""),
    )


def environment_digest(env: Mapping[str, str]) -> bytes:
    """Of what jobs inherit from Raylets; the same on every machine of one launch."""
    lines = [
        f"{name}={value}"
        for name, value in sorted(env.items())
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in INHERITED)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest().encode()


def head_environment(machine: Machine) -> bytes | None:
    """The digest that the head's Ray published; None while there is no such Ray for our token."""
    host, _, port = machine.head_address.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port)), timeout=2).close()
        with contextlib.suppress(Exception):  # RpcError, by its name a private one
            return _gcs(machine).internal_kv_get(ENVIRONMENT_KEY, b"", 5)
    return None


def _gcs(machine: Machine) -> Gcs:
    raylet = importlib.import_module("ray._raylet")
    return cast(Gcs, raylet.GcsClient(address=machine.head_address))


def is_in(machine: Machine, digest: bytes) -> bool:
    """Whether a Raylet of the right head and environment runs here."""
    node = find_ray_node(machine.gcs_port)
    right = node and (machine.is_head or node.gcs_address == machine.head_address)
    return bool(right) and head_environment(machine) == digest


def bring_in(machine: Machine, digest: bytes) -> int:
    """Start this machine's Ray unless it runs; the exit code, see the head of this file."""
    if is_in(machine, digest):
        say("this machine is in our Ray already")
        return 0
    stop(machine.gcs_port)
    code = LOST_MACHINE
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        if not machine.is_head and head_environment(machine) != digest:
            code = LOST_MACHINE
            time.sleep(0.5)
            continue
        started = subprocess.run(
            machine.start_command(), capture_output=True, text=True, check=False
        )
        # A Raylet that came up is one, also when `ray start` did not wait for it long enough.
        if started.returncode == 0 or find_ray_node(machine.gcs_port):
            if machine.is_head:
                _gcs(machine).internal_kv_put(ENVIRONMENT_KEY, digest, True, b"", 30)
            return 0
        code = FAILED
        say(f"Ray did not start: {(started.stderr or started.stdout).strip()[-500:]}")
        stop(machine.gcs_port)
        time.sleep(1)
    return code


def stop(gcs_port: int, proc: Path = Path("/proc")) -> None:
    """End what is left of our Ray on this machine, and nothing of SkyPilot's on another port."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = _pids_of(gcs_port, proc)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline_s = time.monotonic() + 10
        while _pids_of(gcs_port, proc) and time.monotonic() < deadline_s:
            time.sleep(0.1)


def _pids_of(gcs_port: int, proc: Path) -> list[int]:
    """Ray's own processes name their head's address or, the head, its port; other users' stay."""
    found: list[int] = []
    for process in own_processes(proc):
        flags = process.flags
        address = flags.get("gcs-address") or flags.get("gcs_address") or ""
        port = address.rpartition(":")[2] or flags.get("gcs_server_port")
        if port == str(gcs_port):
            found.append(process.pid)
    return found


def wait_for_all(machine: Machine, count: Callable[[Machine], int]) -> bool:
    """Until every machine is in; False when one did not come in time."""
    deadline_s = time.monotonic() + WAIT_S
    while (there := count(machine)) < machine.num_machines:
        if time.monotonic() > deadline_s:
            say(f"{there} of {machine.num_machines} machines came in {WAIT_S:.0f} s")
            return False
        time.sleep(1)
    return True


def num_alive(machine: Machine) -> int:
    """Machines in our Ray now; 0 while it does not answer."""
    with contextlib.suppress(Exception):  # whatever a Ray that is starting or ending answers
        raylet = importlib.import_module("ray._raylet")
        client = raylet.GcsClient(address=machine.head_address)
        return sum(
            node.state == 0  # GcsNodeInfo.ALIVE
            for node in client.get_all_node_info(timeout=5).values()
        )
    return 0


@contextlib.contextmanager
def one_at_a_time() -> Generator[None]:
    with open(Path.home() / ".cria-ray.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    print(f"start_ray: {text}", file=sys.stderr, flush=True)


def main() -> int:
    machine = this_machine(os.environ)
    with one_at_a_time():
        if code := bring_in(machine, environment_digest(os.environ)):
            what = "start its Ray" if code == FAILED else f"join the Ray of {machine.head_address}"
            say(f"this machine could not {what} in {WAIT_S:.0f} s")
            return code
    if machine.is_head and not wait_for_all(machine, num_alive):
        return LOST_MACHINE if num_alive(machine) else FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
