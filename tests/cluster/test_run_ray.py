"""The shell around a job, with a template and a Ray that write down how they are called."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "cluster" / "run_ray.sh"
FAKE_RAY = """#!/bin/sh
echo "$*" >>"$HOME/calls"
case "$2" in
submit) ;;
status) test -e "$HOME/job"; exit ;;
*) exit 0 ;;
esac
if [ -n "$NO_AGENT" ] && ! [ -e "$HOME/tried" ]; then touch "$HOME/tried"; exit 1; fi
touch "$HOME/job"
echo "token=$RAY_AUTH_TOKEN" >>"$HOME/calls"
[ -z "$SLEEP" ] || exec sleep "$SLEEP"
exit "${JOB_CODE:-0}"
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A machine as SkyPilot leaves it: the working folder, its .venv, and the template at home."""
    home = tmp_path / "home"
    for folder in ("sky_workdir/cluster", "sky_workdir/.venv/bin", "sky_templates/ray"):
        (home / folder).mkdir(parents=True)
    shutil.copy(SCRIPT, home / "sky_workdir/cluster")
    files = {
        "sky_workdir/cluster/spot_watch.py": "",
        "sky_workdir/.venv/bin/activate": f'export PATH="{home}/sky_workdir/.venv/bin:$PATH"\n',
        "sky_workdir/.venv/bin/ray": FAKE_RAY,
        "sky_templates/ray/start_cluster": '#!/bin/sh\necho start >>"$HOME/calls"\n',
    }
    for name, text in files.items():
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    return home


def start(node: Path, *command: str, **env: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        ["bash", str(node / "sky_workdir/cluster/run_ray.sh"), *command],
        env={**clean, "HOME": str(node), "SKYPILOT_NODE_RANK": "0", **env},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def calls(node: Path) -> list[str]:
    return (node / "calls").read_text().splitlines()


def test_the_head_submits_the_command_as_it_was_given(node: Path) -> None:
    code, stderr = finish(start(node, "python", "-m", "apps.data", "clean", "two words"))
    assert (code, stderr) == (0, "")
    begun, submit, token = calls(node)
    assert begun == "start"
    assert submit.startswith("job submit --address http://127.0.0.1:8265 --submission-id cria-")
    assert submit.endswith("--working-dir . -- python -m apps.data clean two words")
    assert len(token) == len("token=") + 64
    assert (node / ".cria-ray-token").stat().st_mode & 0o777 == 0o600


def test_a_worker_joins_and_submits_nothing(node: Path) -> None:
    env = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "RAY_AUTH_TOKEN": "t"}
    assert finish(start(node, "python", **env))[0] == 0
    assert calls(node) == ["start"]


def test_several_nodes_without_a_token_are_refused_with_the_command_that_mends_it(
    node: Path,
) -> None:
    code, stderr = finish(start(node, "python", SKYPILOT_NUM_NODES="2"))
    assert code == 2 and "--secret RAY_AUTH_TOKEN=" in stderr
    assert not (node / "calls").exists()


def test_no_command_is_refused(node: Path) -> None:
    code, stderr = finish(start(node))
    assert code == 2 and stderr.startswith("usage: ")


def test_a_failed_job_fails_the_task(node: Path) -> None:
    assert finish(start(node, "python", JOB_CODE="1"))[0] == 1


def test_a_ray_that_takes_no_job_yet_is_asked_again(node: Path) -> None:
    assert finish(start(node, "python", NO_AGENT="1"))[0] == 0
    assert sum(call.startswith("job submit") for call in calls(node)) == 2


def test_a_job_that_failed_on_a_reclaimed_machine_asks_for_another(node: Path) -> None:
    (node / ".cria-spot-notice").write_text("GCP: preempted\n")
    assert finish(start(node, "python", JOB_CODE="1"))[0] == 75


def test_cancelling_the_task_stops_the_job(node: Path) -> None:
    process = start(node, "python", SLEEP="60")
    while not (node / "calls").exists() or len(calls(node)) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
    submit, stop = calls(node)[1], calls(node)[3]
    assert stop.startswith("job stop --address http://127.0.0.1:8265 cria-")
    assert stop.split()[-1] in submit
