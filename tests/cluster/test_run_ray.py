"""The shell around a job, with a Python that writes down how it is called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "cluster" / "run_ray.sh"
FAKE_PYTHON = """#!/bin/sh
case "$*" in
*secrets*) echo abc ;;
*start_ray*) echo "$*" >>"$HOME/calls"; exit "${START_CODE:-0}" ;;
*submit_job*)
    printf '%s\n' "$*" "token=$RAY_AUTH_TOKEN" >>"$HOME/calls"
    exit "${JOB_CODE:-0}"
    ;;
esac
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A machine as SkyPilot leaves it: the working folder and its .venv."""
    home = tmp_path / "home"
    for folder in ("sky_workdir/cluster", "sky_workdir/.venv/bin"):
        (home / folder).mkdir(parents=True)
    shutil.copy(SCRIPT, home / "sky_workdir/cluster")
    files = {
        "sky_workdir/.venv/bin/activate": f'export PATH="{home}/sky_workdir/.venv/bin:$PATH"\n',
        "sky_workdir/.venv/bin/python": FAKE_PYTHON,
    }
    for name, text in files.items():
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    return home


def run(node: Path, *command: str, **env: str) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        ["bash", str(node / "sky_workdir/cluster/run_ray.sh"), *command],
        env={**clean, "HOME": str(node), "SKYPILOT_NODE_RANK": "0", **env},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def calls(node: Path) -> list[str]:
    return (node / "calls").read_text().splitlines()


def test_the_head_submits_the_command_as_it_was_given(node: Path) -> None:
    code, stderr = run(node, "python", "-m", "apps.data", "clean", "two words")
    assert (code, stderr) == (0, "")
    begun, submit, token = calls(node)
    assert begun == "-m cluster.start_ray"
    assert submit.startswith("-m cluster.submit_job --notice-file")
    assert submit.endswith("-- python -m apps.data clean two words")
    assert token == "token=abc"
    assert (node / ".cria-ray-token").stat().st_mode & 0o777 == 0o600


def test_a_worker_joins_and_submits_nothing(node: Path) -> None:
    env = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "RAY_AUTH_TOKEN": "t"}
    assert run(node, "python", **env)[0] == 0
    assert calls(node) == ["-m cluster.start_ray"]


def test_several_nodes_without_a_token_are_refused_with_the_command_that_mends_it(
    node: Path,
) -> None:
    code, stderr = run(node, "python", SKYPILOT_NUM_NODES="2")
    assert code == 2 and "--secret RAY_AUTH_TOKEN=" in stderr
    assert not (node / "calls").exists()


def test_no_command_is_refused(node: Path) -> None:
    code, stderr = run(node)
    assert code == 2 and stderr.startswith("usage: ")


@pytest.mark.parametrize("code", [1, 2, 75, 143])
def test_the_exit_code_of_the_job_is_the_tasks(node: Path, code: int) -> None:
    assert run(node, "python", JOB_CODE=str(code))[0] == code


def test_a_machine_that_could_not_join_submits_nothing_and_is_replaced(node: Path) -> None:
    assert run(node, "python", START_CODE="75")[0] == 75
    assert calls(node) == ["-m cluster.start_ray"]
