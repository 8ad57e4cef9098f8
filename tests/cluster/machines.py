"""Machines for tests: each a network, process and file namespace on one bridge, as SkyPilot has it.

Every machine has an address, processes and shared memory of its own: a Ray in it sees no other.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class TestMachine:
    """One namespace; its process 1 sleeps."""

    __test__ = False
    pid: int
    address: str
    home: Path
    env: Mapping[str, str]

    def popen(self, *argv: str, **env: str) -> subprocess.Popen[str]:
        """Runs a program on this machine, in its working folder."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "-p", "-m", "-u"]
        return subprocess.Popen(
            [*enter, f"--wd={self.home / 'sky_workdir'}", *argv],
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run_ray(self, *command: str, **env: str) -> subprocess.Popen[str]:
        return self.popen("bash", "cluster/run_ray.sh", *command, **env)

    def raylets(self) -> int:
        """How many Raylets run here."""
        listed = self.popen("pgrep", "-c", "-f", "/raylet --raylet_socket_name")
        return int(listed.communicate(timeout=30)[0])

    def lose(self) -> None:
        """The cloud takes the machine: everything on it is gone at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def require_namespaces() -> None:
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("ip", "unshare", "nsenter")):
        pytest.skip("machines of network namespaces need root, iproute2 and util-linux")
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], check=False)
    if tried.returncode != 0:
        pytest.skip("this machine makes no network namespaces")


@contextlib.contextmanager
def machines(folder: Path, count: int) -> Iterator[list[TestMachine]]:
    """`count` machines in one network, of 2 CPUs each as far as Ray is told."""
    require_namespaces()
    bridge = f"cria{os.getpid() % 100_000}"
    net = f"10.{os.getpid() % 200 + 20}.7"
    ip("link", "add", bridge, "type", "bridge")
    ip("link", "set", bridge, "up")
    sleepers: list[subprocess.Popen[bytes]] = []
    try:
        yield [_machine(folder, number, count, bridge, net, sleepers) for number in range(count)]
    finally:
        for sleeper in sleepers:
            for child in _children(sleeper.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            sleeper.wait(30)
        ip("link", "del", bridge)


def _machine(
    folder: Path,
    rank: int,
    count: int,
    bridge: str,
    net: str,
    sleepers: list[subprocess.Popen[bytes]],
) -> TestMachine:
    flags = ["--net", "--pid", "--fork", "--mount", "--mount-proc", "--uts"]
    sleepers.append(
        subprocess.Popen(["unshare", *flags, "sleep", "3600"], stderr=subprocess.DEVNULL)
    )
    deadline_s = time.monotonic() + 20
    while not (children := _children(sleepers[-1].pid)):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    (pid,) = children
    address, link = f"{net}.{rank + 1}", f"{bridge}m{rank}"
    ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    ip("link", "set", link, "master", bridge, "up")
    inside = ["nsenter", "-t", str(pid), "-n", "-m", "-u"]
    for words in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "addr", "add", f"{address}/24", "dev", "eth0"],
        ["ip", "link", "set", "eth0", "up"],
        ["ip", "route", "add", "default", "via", f"{net}.254"],
        ["hostname", f"machine-{rank}"],
    ):
        subprocess.run([*inside, *words], check=True)
    home = folder / f"machine-{rank}"
    _fill(home)
    env = _environment(home, [f"{net}.{number + 1}" for number in range(count)], rank)
    env |= {"CRIA_RAY_TEMP": "/dev/shm/ray"}
    shm = ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", "/dev/shm"]
    subprocess.run([*inside, *shm], check=True)
    return TestMachine(pid=pid, address=address, home=home, env=env)


def _fill(home: Path) -> None:
    work = home / "sky_workdir"
    for part in ("apps", "cluster"):
        shutil.copytree(ROOT / part, work / part, ignore=shutil.ignore_patterns("__pycache__"))
    activate = work / ".venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'export PATH="{BIN}:$PATH"\n')


def _environment(home: Path, addresses: list[str], rank: int) -> dict[str, str]:
    kept = ("PATH", "LANG", "OMP_NUM_THREADS")
    env = {name: value for name, value in os.environ.items() if name in kept}
    return env | {
        "HOME": str(home),
        "PATH": f"{BIN}:{env['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "t" * 64,
        "RAY_USAGE_STATS_ENABLED": "0",
        "SKYPILOT_NODE_RANK": str(rank),
        "SKYPILOT_NODE_IPS": "\n".join(addresses),
        "SKYPILOT_NUM_NODES": str(len(addresses)),
        "PYTHONWARNINGS": "ignore",
    }


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in listed.split()]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
