import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from apps.common.command import runtime
from apps.common.command.runtime import ray_session
from apps.common.errors import ConfigError
from tests.common.command.slow_ray import ROOT, raylet, start


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    process = start(raylet(tmp_path, "exit 1"), wait_s=5)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "Ray did not start, twice: " in err and "Traceback" not in err


def test_the_dashboards_address_is_refused_with_the_command_that_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ConfigError, match="ray job submit"), ray_session():
        pass


def test_a_cluster_that_has_ended_with_its_token_is_one_sentence(tmp_path: Path) -> None:
    gone = {
        "RAY_ADDRESS": "127.0.0.1:1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
    }
    join = (
        "from apps.common.command.runtime import ray_session\nwith ray_session(): print('joined')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", join],
        cwd=ROOT,
        env={**os.environ, **gone},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = ended.stderr.strip().splitlines()[-1]
    assert told.startswith("apps.common.errors.ConfigError: The Ray cluster that RAY_ADDRESS names")
    assert "127.0.0.1:1, cannot be joined (" in told and "unset RAY_ADDRESS" in told


@pytest.mark.ray
def test_the_workers_that_ray_has_ready_are_taken_and_import_our_code(ray_session: object) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def where() -> tuple[str, dict[str, object]]:
        import apps

        return str(apps.__file__), dict(ray.get_runtime_context().runtime_env)

    # Ray starts them without a runtime_env, and passes them over for a job that has one.
    assert ray.get(where.remote()) == (str(ROOT / "apps" / "__init__.py"), {})


@pytest.mark.ray
def test_no_process_starts_that_nobody_uses(ray_session: object) -> None:
    commands = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
    assert any("gcs_server" in command for command in commands)
    unused = ("dashboard.py", "autoscaler", "log_monitor.py")
    assert not [command for command in commands if any(name in command for name in unused)]


ENDS_SLOWLY = """
import time
from apps.common.command.runtime import ray_session

with ray_session(num_cpus=1, object_store_bytes=80 << 20):
    try:
        print("up", flush=True)
        time.sleep(600)
    finally:
        time.sleep(5)
        print("cleaned up", flush=True)
"""


IN_THE_IMPORT = """
import os, signal, sys
from importlib.abc import MetaPathFinder
from apps.common.command import interrupt
from apps.common.command.runtime import ray_session

class Sends(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "ray._raylet":
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Sends())
with ray_session(num_cpus=1, object_store_bytes=80 << 20):
    print("up")
"""
SWALLOWED = """
import os, signal, time
import ray
from apps.common.command.runtime import ray_session

start = ray.init

def swallows(*args, **kwargs):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    except SystemExit:
        return start(*args, **kwargs)

ray.init = swallows
with ray_session(num_cpus=1, object_store_bytes=80 << 20):
    print("up")
"""
AROUND_A_FORK = """
import os, signal
from apps.common.command.runtime import ray_session

os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
with ray_session(num_cpus=1, object_store_bytes=80 << 20):
    print("up")
"""


def outcome_of(program: str) -> tuple[int, str, str]:
    """Exit code, and what it printed, of a program."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.ray
@pytest.mark.parametrize("name, codes", [("SIGTERM", {143}), ("SIGINT", {130, -signal.SIGINT})])
def test_a_signal_that_comes_while_ray_is_imported_ends_the_command(
    name: str, codes: set[int]
) -> None:
    code, out, err = outcome_of(IN_THE_IMPORT.format(signal=name))
    assert code in codes and not out and "Traceback" not in err, err


@pytest.mark.ray
@pytest.mark.parametrize("program", [SWALLOWED, AROUND_A_FORK])
def test_a_sigterm_that_rays_start_swallows_ends_the_command_all_the_same(program: str) -> None:
    code, out, err = outcome_of(program)
    assert (code, out) == (143, "") and "Traceback" not in err, err


@pytest.mark.ray
def test_sigterm_gives_a_command_the_time_that_it_takes_to_clean_up() -> None:
    """Ray's own handler would abort it after three seconds."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", ENDS_SLOWLY],
        cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (143, "cleaned up\n")
    assert "SIGTERM received" not in err


def test_what_ray_says_of_dead_workers_is_not_among_a_commands_own_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(2):
        runtime._ray()
    worker = importlib.import_module("ray._private.worker")
    said = {"lines": ["A worker died"], "pid": "raylet", "is_err": False, "job": None, "ip": "h"}
    worker.print_to_stdstream(said, ignore_prefix=False)
    out, err = capsys.readouterr()
    assert out == "" and err.count("A worker died") == 1
