"""Environments of peers whose pins conflict with ours: one folder each, outside the repository.

    python = peers.environment("trl-1.16.0", ["trl==1.16.0", "torch==2.13.0"])

Made once, with uv where it is installed, else with pip; PIP_FIND_LINKS is passed on to uv. What the
requirements leave open moves under a peer, so `pins/NAME.txt` has a version for everything that the
first installation took. An installation without such a file writes it: commit it.
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

PINS = Path(__file__).parent / "pins"


def environment(name: str, requirements: Sequence[str]) -> str:
    """Path of the peer's Python, installing it on first use."""
    folder = cache_folder() / name
    python = folder / "bin" / "python"
    done = folder / ".requirements"
    pins = PINS / f"{name}.txt"
    wanted = "\n".join([*requirements, pins.read_text() if pins.exists() else ""])
    if done.exists() and done.read_text() == wanted:
        return str(python)
    venv.create(folder, with_pip=True, clear=True)
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "-q", "--python", str(python)] if uv else None
    command = install or [str(python), "-m", "pip", "install", "-q"]
    constraints = ["-c", str(pins)] if pins.exists() else []
    links = os.environ.get("PIP_FIND_LINKS", "")
    subprocess.run(
        [*command, *requirements, *constraints],
        check=True,
        env={**os.environ, "UV_FIND_LINKS": links},
    )
    if not pins.exists():
        pins.write_text(_installed(python))
        wanted = "\n".join([*requirements, pins.read_text()])
    done.write_text(wanted)
    return str(python)


def _installed(python: Path) -> str:
    """A line `name==version` for each package; local builds without their label."""
    command = [str(python), "-m", "pip", "list", "--format", "freeze"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    own = ("pip==", "setuptools==", "wheel==")
    kept = [line.partition("+")[0] for line in lines.splitlines() if not line.startswith(own)]
    return "\n".join(kept) + "\n"


def cache_folder() -> Path:
    """Where peers live: $XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "cria-benchmarks"


def run(python: str, script: Path, *arguments: str) -> str:
    """Standard output of a script; its errors go to ours."""
    command = [python, str(script), *arguments]
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, "PYTHONPATH": path, **quiet}
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, env=environment
    ).stdout
