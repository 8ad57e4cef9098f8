"""Machines for tests: each a network, process and file namespace on one bridge, as SkyPilot has it.

Every machine has an address, processes and shared memory of its own: a Ray in it sees no other.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from apps.common.command.runtime import free_port
from cluster.start_ray import stop

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
        return len(self.pids("/raylet --raylet_socket_name"))

    def pids(self, words: str) -> list[int]:
        """Of processes here with these words in their command line; their numbers here."""
        return [int(word) for word in self.run("pgrep", "-f", words).split()]

    def signal(self, number: signal.Signals, *pids: int) -> None:
        self.run("kill", f"-{int(number)}", *map(str, pids))

    def run(self, *argv: str) -> str:
        """To its end; what it printed."""
        return self.popen(*argv).communicate(timeout=60)[0]

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
def lone_machine(home: Path) -> Iterator[dict[str, str]]:
    """One machine as SkyPilot leaves it, no namespace; yields the environment of its shell."""
    fill(home)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    port, dashboard_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="cria-job-", dir="/tmp") as folder:
        yield env | {
            "HOME": str(home),
            "CRIA_RAY_TEMP": folder,
            "RAY_HEAD_PORT": str(port),
            "RAY_DASHBOARD_PORT": str(dashboard_port),
            "RAY_DASHBOARD_AGENT_LISTEN_PORT": str(free_port()),
            "SKYPILOT_NODE_RANK": "0",
        }
        stop(port)


class Network:
    """A bridge, and the machines that are plugged into it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bridge = f"cria{os.getpid() % 100_000}"
        self._net = f"10.{os.getpid() % 200 + 20}.7"
        self._sleepers: list[subprocess.Popen[bytes]] = []
        ip("link", "add", self._bridge, "type", "bridge")
        ip("addr", "add", f"{self.router}/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")

    @property
    def router(self) -> str:
        """Where this process itself is."""
        return f"{self._net}.254"

    def address(self, number: int) -> str:
        return f"{self._net}.{number + 1}"

    def close(self) -> None:
        for sleeper in self._sleepers:
            for child in _children(sleeper.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            sleeper.wait(30)
        ip("link", "del", self._bridge)

    def add(self, **env: str) -> TestMachine:
        """One more machine, with its number as its address."""
        number = len(self._sleepers)
        pid = self._namespace()
        link = f"{self._bridge}m{number}"
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        ip("link", "set", link, "master", self._bridge, "up")
        inside = ["nsenter", "-t", str(pid), "-n", "-m", "-u"]
        for words in (
            ["ip", "link", "set", "lo", "up"],
            ["ip", "addr", "add", f"{self.address(number)}/24", "dev", "eth0"],
            ["ip", "link", "set", "eth0", "up"],
            ["ip", "route", "add", "default", "via", self.router],
            ["hostname", f"machine-{number}"],
            ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", "/dev/shm"],
        ):
            subprocess.run([*inside, *words], check=True)
        home = self._folder / f"machine-{number}"
        fill(home)
        return TestMachine(
            pid=pid,
            address=self.address(number),
            home=home,
            env={**_environment(home), "CRIA_RAY_TEMP": "/dev/shm/ray", **env},
        )

    def _namespace(self) -> int:
        """The id of its process 1."""
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--kill-child", "--fork"]
        argv += ["--net", "--pid", "--mount", "--mount-proc", "--uts", "sleep", "3600"]
        self._sleepers.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))
        deadline_s = time.monotonic() + 20
        while not (children := _children(self._sleepers[-1].pid)):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        (pid,) = children
        return pid


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    require_namespaces()
    net = Network(folder)
    try:
        yield net
    finally:
        net.close()


@contextlib.contextmanager
def machines(folder: Path, count: int) -> Iterator[list[TestMachine]]:
    """`count` machines as SkyPilot gives them to one task."""
    with network(folder) as net:
        addresses = "\n".join(net.address(number) for number in range(count))
        told = {"SKYPILOT_NODE_IPS": addresses, "SKYPILOT_NUM_NODES": str(count)}
        yield [net.add(SKYPILOT_NODE_RANK=str(rank), **told) for rank in range(count)]


def fill(home: Path) -> None:
    work = home / "sky_workdir"
    for part in ("apps", "cluster"):
        shutil.copytree(ROOT / part, work / part, ignore=shutil.ignore_patterns("__pycache__"))
    activate = work / ".venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'export PATH="{BIN}:$PATH"\n')


def _environment(home: Path) -> dict[str, str]:
    kept = ("PATH", "LANG", "OMP_NUM_THREADS")
    env = {name: value for name, value in os.environ.items() if name in kept}
    return env | {
        "HOME": str(home),
        "PATH": f"{BIN}:{env['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "t" * 64,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONWARNINGS": "ignore",
    }


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in listed.split()]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
