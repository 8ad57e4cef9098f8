"""The steps of the image, taken one after another as its user, on a throw-away copy of this system.

Docker and Ray's image are not at hand: what stands for Ray's image is an overlay over /, and for
pip a script that writes where pip would.
"""

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "cluster/kuberay/Dockerfile"
RAY_USER = "1000:100"
"""of rayproject/ray's images, whose home is /home/ray"""
PIP = """#!/bin/sh
set -e
touch "$(dirname "$(readlink -f "$0")")/installed"
echo "pip $*" >>"$HOME/pip-calls"
"""
PYTHON = """#!/bin/sh
set -e
if [ "$2" = venv ]; then
    mkdir -p "$3/bin"
    cp /home/ray/bin/pip "$3/bin/pip"
    exit 0
fi
exec {python} "$@"
"""


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each step, continued lines joined."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line.strip() for line in text.splitlines()]
    steps = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in steps]


def context(folder: Path) -> Path:
    """What `docker build` is given: the repository, and what people leave in it."""
    for part in ("apps", "cluster"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "requirements-gpu.txt", ".dockerignore"):
        shutil.copy(ROOT / name, folder)
    for name in (".env", ".git/config", "deep/er/my.key", "runs/a/model.safetensors", "page.db"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not for others")
    return folder


def is_left_out(name: str, patterns: list[str]) -> bool:
    """By .dockerignore, for the patterns that stand in ours: a leading **/ is any folder."""
    parts = Path(name).parts
    heads = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return any(
        fnmatch.fnmatchcase(head, pattern)
        or (pattern.startswith("**/") and fnmatch.fnmatchcase(Path(head).name, pattern[3:]))
        for head in heads
        for pattern in patterns
    )


def sent(folder: Path) -> list[str]:
    lines = (folder / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    return [name for name in names if not is_left_out(name, patterns)]


def script(folder: Path, command: str) -> str:
    """The shell that takes every step inside the copy, and then `command` as a pod does."""
    user, where, lines = RAY_USER, "/", ["set -e"]
    for word, rest in [*instructions(), ("USER", "ray"), ("RUN", command)]:
        if word == "USER":
            user = {"root": "0:0", "ray": RAY_USER}[rest]
        elif word == "WORKDIR":
            where = rest
            lines.append(f"mkdir -p {rest}")
        elif word == "ENV":
            lines.append(f"export {rest}")
        elif word == "COPY":
            lines += copied(rest, folder)
        elif word == "RUN":
            uid, _, gid = user.partition(":")
            enter = f"setpriv --reuid {uid} --regid {gid} --clear-groups --inh-caps=-all"
            lines.append(f"(cd {where} && {enter} sh -ec {shlex.quote(rest)})")
        else:
            assert word == "FROM", word
    return "\n".join(lines)


def copied(rest: str, folder: Path) -> list[str]:
    """COPY makes files of root, unless --chown says otherwise."""
    owner = re.search(r"--chown=(\S+) ", rest)
    *sources, target = re.sub(r"--chown=\S+ ", "", rest).split()
    names = [name for name in sent(folder) if "." in sources or name in sources]
    paths = " ".join(shlex.quote(name) for name in sorted(names))
    into = f"tar -C {target} -xf - --no-same-owner"
    lines = [f"[ -d {target} ] || install -d {target}", f"tar -C /context -cf - {paths} | {into}"]
    given = owner[1] if owner else "0:0"
    return [*lines, f"(cd {target} && chown {given} {paths})"]


def build_and_run(tmp_path: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Every step of the image, then a command in it as a pod runs it."""
    folder = context(tmp_path / "context")
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    for name, text in {"pip": PIP, "python": PYTHON.format(python=sys.executable)}.items():
        (home / "bin" / name).write_text(text)
        (home / "bin" / name).chmod(0o755)
    # The copy's folders on the way to this Python, which may be in root's home.
    open_folders = " ".join(f"/mnt/root{part}" for part in Path(sys.executable).resolve().parents)
    copy = f"""
        set -e
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/upper /mnt/work /mnt/root
        mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
        mkdir -p /mnt/root/context /mnt/root/home/ray /mnt/root/dev
        cp -a {home}/. /mnt/root/home/ray/ && chown -R {RAY_USER} /mnt/root/home/ray
        mount --bind {folder} /mnt/root/context
        mount --bind /dev /mnt/root/dev
        chmod a+x {open_folders}
        exec chroot /mnt/root sh -c "$SCRIPT"
    """
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", copy],
        env={
            "HOME": "/home/ray",
            "PATH": "/home/ray/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "SCRIPT": script(folder, command),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def can_copy(tmp_path: Path) -> None:
    tried = "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/r && mount -t overlay o -o "
    tried += "lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/r"
    if os.geteuid() or subprocess.run(["unshare", "-m", "sh", "-c", tried], check=False).returncode:
        pytest.skip("an overlay over / needs root and a kernel that lets a namespace mount it")


@pytest.mark.slow
@pytest.mark.usefixtures("can_copy")
def test_the_image_builds_as_its_user_and_runs_the_apps(tmp_path: Path) -> None:
    look = "for app in data eval; do python -m apps.$app --help >/dev/null; done"
    done = build_and_run(tmp_path, f"{look}; cat ~/pip-calls; id -u; touch /cria/mine; ls -A /cria")
    assert done.returncode == 0, done.stdout + done.stderr
    vllm = re.search(r"^vllm==\S+", (ROOT / "requirements-gpu.txt").read_text(), re.M)
    assert vllm and f"pip install --no-cache-dir {vllm[0]}" in done.stdout
    assert "-r /cria/requirements.txt" in done.stdout and "\n1000\n" in done.stdout
    inside = set(done.stdout.rpartition("\n1000\n")[2].split())
    assert {"apps", "cluster", ".venv-vllm", "mine"} <= inside
    assert not {".env", ".git", "runs", "tests", "page.db"} & inside


def test_nothing_secret_and_nothing_that_a_run_made_is_sent(tmp_path: Path) -> None:
    names = sent(context(tmp_path / "context"))
    assert "apps/serve/config.py" in names and "cluster/runtime_env.yaml" in names
    endings = (".key", ".safetensors", ".db", ".env")
    assert [name for name in names if name.endswith(endings) or name.startswith(".git/")] == []
