"""Ray in a process of its own, with a raylet that starts late or never."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
import ray._private.services as services
from apps.common.command import cli, runtime
from apps.common.command.runtime import ray_session
from dataclasses import dataclass

services.RAYLET_EXECUTABLE = sys.argv.pop(1)
runtime.START_WAIT_S = float(sys.argv.pop(1))

@dataclass(frozen=True)
class Nothing: ...

def run(settings, reporter):
    print("starting", flush=True)
    with ray_session(num_cpus=1, object_store_bytes=80 << 20) as session:
        import ray
        reporter.line(f"CPUs: {ray.cluster_resources()['CPU']:g}")

sys.exit(cli.run_single("test", cli.Command(config=Nothing, run=run, help="starts Ray")))
"""


def raylet(folder: Path, first: str) -> Path:
    """Ray's own, after the lines of shell that come first."""
    import ray

    real = Path(ray.__file__).parent / "core/src/ray/raylet/raylet"
    script = folder / "raylet"
    script.write_text(f'#!/bin/bash\n{first}\nexec {real} "$@"\n')
    script.chmod(0o755)
    return script


def start(script: Path, wait_s: float = 120) -> subprocess.Popen[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(script), str(wait_s)],
        cwd=ROOT,
        env=inherited,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_over(script: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(script) in (p.info["cmdline"] or ())]
