"""One machine's place in our Ray, told from SkyPilot's variables, and the end of its processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster import start_ray
from cluster.spot_watch import find_ray_node

HEAD = {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}


def test_a_machine_alone_is_the_head() -> None:
    machine = start_ray.this_machine({})
    assert machine.is_head and machine.num_machines == 1
    assert machine.head_address == "127.0.0.1:6379"


def test_a_worker_joins_the_first_machine() -> None:
    machine = start_ray.this_machine(HEAD | {"SKYPILOT_NODE_RANK": "1", "RAY_HEAD_PORT": "7000"})
    command = machine.start_command()
    assert command[:4] == ["ray", "start", "--address", "10.0.0.1:7000"]
    assert "--head" not in command


def test_the_dashboard_stays_on_the_loopback_address() -> None:
    command = start_ray.this_machine(HEAD).start_command()
    assert command[command.index("--dashboard-host") + 1] == "127.0.0.1"


def test_rays_folders_are_a_setting() -> None:
    env = {"CRIA_RAY_TEMP": "/mnt/ray", "CRIA_RAY_SPILL": "/mnt/spill"}
    command = start_ray.this_machine(env).start_command()
    assert command[command.index("--temp-dir") + 1] == "/mnt/ray"
    assert command[command.index("--object-spilling-directory") + 1] == "/mnt/spill"


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "AWS_PROFILE", "NCCL_SOCKET_IFNAME", "CRIA_LOGS", "MLFLOW_TRACKING_URI"]
)
def test_what_a_job_inherits_is_part_of_the_environment(name: str) -> None:
    before = start_ray.environment_digest({name: "a"})
    assert before != start_ray.environment_digest({name: "b"})


@pytest.mark.parametrize("name", ["SKYPILOT_NODE_RANK", "PWD", "SSH_CONNECTION", "HOSTNAME"])
def test_what_differs_between_machines_is_not(name: str) -> None:
    assert start_ray.environment_digest({name: "a"}) == start_ray.environment_digest({name: "b"})


@pytest.mark.parametrize(
    ("argv", "is_ours"),
    [
        (["raylet", "--gcs-address=10.0.0.5:6379", "--node_id=ab"], True),
        (["python", "agent.py", "--gcs-address=10.0.0.5:6379"], True),
        (["gcs_server", "--gcs_server_port=6379"], True),
        (["raylet", "--gcs-address=10.0.0.5:6380"], False),  # SkyPilot's own
        (["gcs_server", "--gcs_server_port=6380"], False),
        (["vim", "notes-6379"], False),
    ],
)
def test_our_rays_processes_are_told_by_the_heads_port(
    argv: list[str], is_ours: bool, tmp_path: Path
) -> None:
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "cmdline").write_text("\0".join([*argv, ""]))
    assert start_ray._pids_of(6379, tmp_path) == ([11] if is_ours else [])


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_another_users_ray_on_the_same_machine_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "11").mkdir()
    cmdline = tmp_path / "11" / "cmdline"
    cmdline.write_text("/ray/raylet\0--gcs-address=10.0.0.5:6379\0--node_id=ab\0")
    assert start_ray._pids_of(6379, tmp_path) == [11] and find_ray_node(6379, tmp_path)
    os.chown(cmdline, 12345, 12345)
    assert start_ray._pids_of(6379, tmp_path) == [] and find_ray_node(6379, tmp_path) is None


def test_stopping_ends_what_is_left_also_when_it_does_not_listen() -> None:
    ignores = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True)"
    argv = [sys.executable, "-c", f"{ignores}; time.sleep(60)", "--gcs-address=10.0.0.5:1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        began_s = time.monotonic()
        start_ray.stop(1)
        assert process.wait(5) == -9
        assert time.monotonic() - began_s < 30


def test_a_machine_that_does_not_come_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start_ray, "WAIT_S", 0.0)
    machine = start_ray.this_machine(HEAD | {"SKYPILOT_NUM_NODES": "2"})
    assert not start_ray.wait_for_all(machine, lambda _: 1)
    assert "1 of 2 machines" in capsys.readouterr().err


@pytest.fixture
def refusing_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `ray start` that refuses its settings, on a port where no Ray is."""
    program = tmp_path / "ray"
    program.write_text("#!/bin/sh\necho 'Error: No such option' >&2; exit 2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_HEAD_PORT", "6999")
    monkeypatch.setattr(start_ray, "WAIT_S", 0.5)


@pytest.mark.parametrize("num_machines", ["1", "2"])
def test_a_ray_that_does_not_start_here_starts_on_no_other_machine(
    num_machines: str, refusing_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYPILOT_NUM_NODES", num_machines)
    assert start_ray.main() == 1


@pytest.mark.parametrize(("head_is_there", "code"), [(True, 1), (False, 75)])
def test_a_worker_tells_its_own_failure_from_a_head_that_never_came(
    head_is_there: bool, code: int, refusing_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = HEAD | {"SKYPILOT_NODE_RANK": "1", "RAY_HEAD_PORT": "6999"}
    digest = b"digest" if head_is_there else None
    monkeypatch.setattr(start_ray, "head_environment", lambda machine: digest)
    assert start_ray.bring_in(start_ray.this_machine(env), b"digest") == code


@pytest.mark.parametrize(("alive", "code"), [(1, 75), (0, 1)])
def test_a_head_tells_a_peer_that_never_came_from_its_own_ray_that_ended(
    alive: int, code: int, refusing_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYPILOT_NUM_NODES", "2")
    monkeypatch.setattr(start_ray, "bring_in", lambda machine, digest: 0)
    monkeypatch.setattr(start_ray, "num_alive", lambda machine: alive)
    assert start_ray.main() == code
