"""Start `python -m apps.train run` in processes of its own, break it, compare what comes out."""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from apps.common.files import config as configs
from apps.common.files.schema import CHECKPOINTS_DIR
from apps.common.files.storage import COMMIT_NAME
from apps.train.checkpoint import checkpoint
from apps.train.config import CheckpointConfig, RunConfig
from apps.train.export import read_weights
from apps.train.loop.record import read_metrics
from tests.train.conftest import small_config

ROOT = Path(__file__).resolve().parents[2]
STEPS = 240
CURVE = ("step", "loss", "lr", "grad_norm", "tokens", "supervised_tokens")
TIMEOUT_S = 240.0
_PR_SET_PDEATHSIG = 1


def chaos_config(base: Path, pack: Path, out: Path) -> RunConfig:
    """240 short steps on two ranks, a checkpoint every 15."""
    every = CheckpointConfig(interval_steps=15, keep_last=3)
    return replace(small_config(base, pack, out), steps=STEPS, checkpoint=every)


@contextlib.contextmanager
def running(config: RunConfig, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command; whatever happens in the block, nothing of it is left running after it."""
    process = start(config, log, **env)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_tree(process)


def start(config: RunConfig, log: Path, **env: str) -> subprocess.Popen[bytes]:
    """The command, in a session of its own; what it prints is appended to `log`."""
    settings = log.with_suffix(".yaml")
    settings.write_text(configs.dump(config))
    command = [sys.executable, "-m", "apps.train", "run", "--config", str(settings)]
    for name in ("base", "data", "out"):
        command += [f"--{name}", getattr(config, name)]
    environ = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    with log.open("ab") as stream:
        return subprocess.Popen(
            [*command, "--log-format", "json"],
            cwd=ROOT,
            env={**environ, "OMP_NUM_THREADS": "1", **env},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )


def on_machines(config: RunConfig, what: str, step: int, settings: Path) -> str:
    """The command on a cluster of several machines (machines.py); what it printed.

    `settings` is a file to write the run's settings to.
    """
    settings.write_text(configs.dump(config))
    command = [sys.executable, "-m", "tests.train.machines", str(settings), what, str(step)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    ) as cluster:
        try:
            printed, _ = cluster.communicate(timeout=1200)
        finally:
            cluster.terminate()  # it then ends what it has started
    assert cluster.returncode == 0, printed[-3000:]
    return printed


def end_with_parent() -> None:
    """In a child before it starts: the kernel kills it when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for_step(config: RunConfig, step: int, process: subprocess.Popen[bytes]) -> int:
    """Return once the run has taken `step` steps; the step it has then reached."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError, ValueError):
            records = read_metrics(config.out)
            if records and records[-1]["step"] >= step:
                return records[-1]["step"]
        assert process.poll() is None, f"the run ended (exit {process.poll()}) before step {step}"
        time.sleep(0.02)
    pytest.fail(f"the run did not reach step {step} in {TIMEOUT_S:.0f} s")


def finish(process: subprocess.Popen[bytes], log: Path) -> list[dict]:
    """Wait for exit code 0; the events that the command printed."""
    code = process.wait(timeout=TIMEOUT_S)
    lines = log.read_text().splitlines()
    assert code == 0, "\n".join(lines[-40:])
    return [json.loads(line) for line in lines if line.startswith("{")]


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the driver; what it had started must then end by itself."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Ray's two node agents look for their parent only now and then, and touch no run.
    acting = [p for p in family if "Agent" not in name_of(p)]
    _, alive = psutil.wait_procs(acting, timeout=60)
    for left in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    assert alive == [], f"left behind by a killed driver: {alive}"


def rank_processes(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of the ranks, below the driver."""
    family = psutil.Process(process.pid).children(recursive=True)
    return [p for p in family if is_rank(p)]


def is_rank(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "RayTrainWorker" in " ".join(process.cmdline())
    return False


def name_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return "gone"


def ray_gauges(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """The run's gauges on the port that Prometheus reads, by name; empty while none is there."""
    family = psutil.Process(process.pid).children(recursive=True)
    words = " ".join(word for p in family if name_of(p) == "raylet" for word in p.cmdline())
    folder = re.search(r"--temp-dir=(\S+)", words)
    ports = Path(folder[1]).glob("session_latest/metrics_export_port_*") if folder else ()
    page = ""
    for port in ports:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{port.read_text()}/metrics"
            page += urllib.request.urlopen(url, timeout=10).read().decode()
    found = re.findall(r"^ray_cria_train_(\w+)\{.*\} (\S+)$", page, re.MULTILINE)
    return {name: float(value) for name, value in found}


def curve(config: RunConfig) -> list[tuple]:
    return [tuple(record[name] for name in CURVE) for record in read_metrics(config.out)]


def committed_steps(config: RunConfig) -> list[int]:
    found = (Path(config.out) / CHECKPOINTS_DIR).glob(f"step-*/{COMMIT_NAME}")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in found)


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    found = checkpoint.newest(config.out, "digest", pytest.fail)
    assert found is not None
    assert found.step == config.steps
    return read_weights(found)


def assert_same(ours: RunConfig, theirs: RunConfig) -> None:
    """Loss curve and final weights are equal to the last bit."""
    assert curve(ours) == curve(theirs)
    a, b = weights(ours), weights(theirs)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
