"""A cloud for SkyPilot on this machine: Slurm with one node, reached by ssh on a loopback port.

Debian's slurm-wlm, munge and openssh-server, uv, and skypilot[slurm]. What SkyPilot would download
from elsewhere is stood in for: uv's installer by the uv that is here, its Python 3.10 by this one.
"""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from apps.common.command.runtime import free_port

ROOT = Path(__file__).resolve().parents[2]
USER = "criasky"
TOOLS = ("slurmctld", "slurmd", "munged", "sshd", "uv", "curl", "rsync", "socat", "nc", "useradd")
SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"

CURL = """#!/bin/sh
case "$*" in
*astral.sh/uv/*) echo 'mkdir -p "$UV_INSTALL_DIR" && cp {folder}/bin/uv "$UV_INSTALL_DIR"' ;;
*) exec {folder}/bin/real-curl "$@" ;;
esac
"""
UV = """#!/bin/bash
exec {uv} "${{@/3.10/3.11}}"
"""
SLURM_CONF = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
SSHD_CONF = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
MaxSessions 100
MaxStartups 100
AllowTcpForwarding yes
Subsystem sftp internal-sftp
SetEnv SLURM_CONF={folder}/slurm.conf PATH={folder}/bin:{path} {certificates}
"""
SSH_CONF = """
Host local
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/key
    StrictHostKeyChecking no
"""
SKY_CONF = """
jobs: {controller: {consolidation_mode: true}}
"""
PLUGINS = """
plugins:
  - class: cluster.next_region.NextRegionPlugin
  - class: tests.cluster.sky_reachable.ReachablePlugin
"""
QUEUE = """
import dataclasses, json
from cluster import sky_jobs
print("QUEUE", json.dumps([dataclasses.asdict(one) for one in sky_jobs.queue()]))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmCloud:
    folder: Path
    env: Mapping[str, str]
    """of SkyPilot's commands"""

    def sky(self, *argv: str, timeout_s: float = 580) -> subprocess.CompletedProcess[str]:
        sky = str(Path(sys.executable).with_name("sky"))
        return self.run(sky, *argv, timeout_s=timeout_s)

    def run(self, *argv: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False,
            timeout=timeout_s, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def jobs(self) -> list[dict[str, object]]:
        """Managed jobs, as cluster/sky_jobs.py reads them."""
        done = self.run(sys.executable, "-W", "ignore", "-c", QUEUE)
        lines = [line for line in done.stdout.splitlines() if line.startswith("QUEUE ")]
        assert lines, done.stdout[-2000:] + done.stderr[-2000:]
        return json.loads(lines[-1].removeprefix("QUEUE "))

    def slurm_jobs(self) -> list[str]:
        return self.run("squeue", "-h", "-o", "%i").stdout.split()

    def end_jobs(self) -> None:
        deadline_s = time.monotonic() + 60
        while self.slurm_jobs() and time.monotonic() < deadline_s:
            self.run("scancel", "--user", USER)
            time.sleep(1)

    def lose_machine(self) -> None:
        """What runs on the node is killed, as when a cloud takes the machine."""
        for number in self.slurm_jobs():
            self.run("scancel", "--signal=KILL", "--full", number)
            self.run("scancel", number)


@contextlib.contextmanager
def slurm_cloud() -> Iterator[SlurmCloud]:
    missing = [
        tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:{SBIN}") is None
    ]
    if os.geteuid() or missing:
        pytest.skip(f"SkyPilot on Slurm needs root and {', '.join(missing) or 'root'}")
    pytest.importorskip("sky")
    pytest.importorskip("hostlist", reason='pip install "skypilot[slurm]"')
    folder = Path(tempfile.mkdtemp(prefix="cria-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        for made in (folder, f"{folder}-ray"):  # the second is what the tasks' Ray writes
            stack.callback(shutil.rmtree, made, ignore_errors=True)
        stack.enter_context(_user(folder))
        port = _write(folder)
        reachable = free_port()
        for argv in _daemons(folder, reachable):
            stack.enter_context(_daemon(folder, *argv))
        env = {**_environment(folder), "CRIA_REACHABLE": f"http://127.0.0.1:{reachable}/"}
        cloud = SlurmCloud(folder=folder, env=env)
        _wait_for_port(port)
        _wait_for_node(cloud)
        stack.callback(cloud.end_jobs)
        stack.callback(cloud.sky, "api", "stop")
        yield cloud


@contextlib.contextmanager
def _user(folder: Path) -> Iterator[None]:
    """One for Slurm's jobs; its processes are ours."""
    made = [
        "useradd",
        "--create-home",
        "--home-dir",
        str(folder / "home"),
        "-s",
        "/bin/bash",
        "-p",
        "*",
    ]
    subprocess.run([*made, USER], check=True, env={"PATH": SBIN})  # "*": no password, not locked
    uid = pwd.getpwnam(USER).pw_uid
    try:
        yield
    finally:
        for status in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if status.stat().st_uid == uid:
                    os.kill(int(status.name), signal.SIGKILL)
        time.sleep(1)
        subprocess.run(["userdel", USER], check=True, env={"PATH": SBIN})


def _write(folder: Path) -> int:
    """Every file of Slurm, sshd and SkyPilot; the port of sshd."""
    for name in ("bin", "munge", "state", "spool", "client/.slurm", "client/.sky"):
        (folder / name).mkdir(parents=True)
    port, host = free_port(), socket.gethostname().split(".")[0]
    certificates = " ".join(
        f"{name}={value}" for name, value in os.environ.items()
        if name.endswith(("CERT_FILE", "CA_BUNDLE", "CERT_DIR")) or name.startswith("UV_")
    )  # fmt: skip
    texts = {
        "slurm.conf": SLURM_CONF.format(
            host=host, folder=folder, ctld_port=free_port(), slurmd_port=free_port()
        ),
        "sshd_config": SSHD_CONF.format(
            port=port, folder=folder, path=SBIN, certificates=certificates
        ),
        "client/.slurm/config": SSH_CONF.format(port=port, folder=folder, user=USER),
        "client/.sky/config.yaml": SKY_CONF,
        "client/plugins.yaml": PLUGINS,
        "bin/curl": CURL.format(folder=folder),
        "bin/uv": UV.format(uv=shutil.which("uv")),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    shutil.copy("/usr/bin/curl", folder / "bin/real-curl")
    for name in ("curl", "uv"):
        (folder / "bin" / name).chmod(0o755)
    (folder / "munge/key").write_bytes(os.urandom(1024))
    (folder / "munge/key").chmod(0o400)
    for name in ("host_key", "key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    return port


def _daemons(folder: Path, reachable: int) -> list[list[str]]:
    """`reachable`: the port of a server that answers whether there is a network."""
    munge = [f"--{name}={folder}/munge/{name}" for name in ("socket", "pid-file", "seed-file")]
    munge += [f"--key-file={folder}/munge/key", f"--log-file={folder}/munge/log"]
    empty = ["--bind", "127.0.0.1", "--directory", f"{folder}/state"]
    return [
        [sys.executable, "-m", "http.server", str(reachable), *empty],
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D"],
        ["/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/sshd_config"],
    ]


@contextlib.contextmanager
def _daemon(folder: Path, *argv: str) -> Iterator[None]:
    env = {"PATH": SBIN, "SLURM_CONF": f"{folder}/slurm.conf", "HOME": "/root"}
    with (folder / f"{Path(argv[0]).name}.out").open("wb") as out:
        # Logins have a PATH of their own: there the stand-in takes curl's place, for nobody else.
        shim = f"set -e; mount --bind {folder}/bin/curl /usr/bin/curl; {_opened(folder)}"
        shell = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "sh",
            "-c",
            shim + 'exec "$@"',
            "sh",
        ]
        begun = subprocess.Popen([*shell, *argv], env=env, stdout=out, stderr=out)
    try:
        time.sleep(1)
        assert begun.poll() is None, (folder / f"{Path(argv[0]).name}.out").read_text()
        yield
    finally:
        begun.terminate()
        begun.wait(30)


def _opened(folder: Path) -> str:
    """The shell that lets Slurm's user run this Python, where that lies in root's home."""
    python = Path(sys.base_prefix)
    closed = [part for part in reversed(python.parents) if not part.stat().st_mode & 0o001]
    if not closed:
        return ""
    kept = f"mkdir -p {folder}/python; mount --bind {python} {folder}/python; "
    kept += f"mount -t tmpfs -o mode=755 tmpfs {closed[0]}; "
    return kept + f"mkdir -p {python}; mount --bind {folder}/python {python}; "


def _environment(folder: Path) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "SKYPILOT_"))}
    path = f"{Path(sys.executable).parent}:{folder}/bin:{SBIN}"
    return kept | {
        "HOME": str(folder / "client"),
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "SLURM_CONF": f"{folder}/slurm.conf",
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        "SKYPILOT_SERVER_PLUGINS_CONFIG": str(folder / "client/plugins.yaml"),
    }


def _wait_for_port(port: int) -> None:
    deadline_s = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return
        assert time.monotonic() < deadline_s, "sshd does not listen"
        time.sleep(0.2)


def _wait_for_node(cloud: SlurmCloud) -> None:
    deadline_s = time.monotonic() + 60
    while "idle" not in (seen := cloud.run("sinfo", "-h", "-o", "%t").stdout):
        assert time.monotonic() < deadline_s, f"Slurm's node is {seen!r}"
        time.sleep(0.5)
