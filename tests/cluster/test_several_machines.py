"""`cluster/run_ray.sh` on two machines of network namespaces, with a real Ray on each."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.machines import TestMachine, machines

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("jobs")]

TOKEN_OF_EVERY_MACHINE = """
import os, ray
ray.init(log_to_driver=False)
@ray.remote(scheduling_strategy="SPREAD", num_cpus=1)
def look():
    import time; time.sleep(1)
    return ray.util.get_node_ip_address(), os.environ.get("HF_TOKEN")
seen = set(ray.get([look.remote() for _ in range(2 * int(ray.cluster_resources()["CPU"]))]))
print("NODES", len([n for n in ray.nodes() if n["Alive"]]), "SEEN", sorted(seen))
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[TestMachine]]:
    with machines(tmp_path_factory.mktemp("machines"), 2) as pair:
        yield pair


def run(pair: list[TestMachine], *command: str, **env: str) -> list[tuple[int, str]]:
    """The command as SkyPilot runs it: on every machine at once."""
    begun = [machine.run_ray(*command, **env) for machine in pair]
    outputs = [process.communicate(timeout=200)[0] for process in begun]
    return [(process.returncode, text) for process, text in zip(begun, outputs, strict=True)]


def test_chained_commands_leave_one_raylet_a_machine(two: list[TestMachine]) -> None:
    for _ in range(2):
        (code, text), (worker_code, _) = run(two, "python", "-c", TOKEN_OF_EVERY_MACHINE)
        assert (code, worker_code) == (0, 0), text
        assert "NODES 2 " in text
    assert [machine.raylets() for machine in two] == [1, 1]


@pytest.mark.slow
def test_a_relaunch_gives_every_machine_the_new_environment(two: list[TestMachine]) -> None:
    (code, text), _ = run(two, "python", "-c", TOKEN_OF_EVERY_MACHINE, HF_TOKEN="new")
    assert code == 0, text
    seen = re.search(r"NODES 2 SEEN (.*)", text)
    assert seen and seen[1].count("'new'") == 2 and "None" not in seen[1]
    assert [machine.raylets() for machine in two] == [1, 1]


@pytest.mark.slow
def test_bad_input_is_two_and_is_tried_once(two: list[TestMachine]) -> None:
    (code, text), _ = run(
        two, "python", "-m", "apps.data", "clean", "/none.json", "--out", "s3://b/x", HF_TOKEN="new"
    )
    assert code == 2, text
    assert "names no file" in text and "tried again" not in text


@pytest.mark.slow
def test_a_folder_of_one_machine_is_refused_before_any_work(
    two: list[TestMachine], tmp_path: Path
) -> None:
    """/dev/shm is each machine's own here, and this test's folder is seen by both."""
    dump, own = tmp_path / "dump.json", "/dev/shm/own"
    write_dump(dump)
    two[0].run("cp", str(dump), own + ".json")
    for source, out, fault in (
        (str(dump), own, f"--out {own} is another folder there; give a bucket"),
        (own + ".json", str(tmp_path / "clean"), f"{own}.json is not there, or is another"),
    ):
        command = ("python", "-m", "apps.data", "clean", source, "--out", out)
        (code, text), _ = run(two, *command)
        assert code == 2, text
        assert fault in text and "tried again" not in text
    assert not any((tmp_path / "clean").iterdir()), "a refused run leaves no settings either"
    shared = ("python", "-m", "apps.data", "clean", str(dump), "--out", str(tmp_path / "clean"))
    (code, text), _ = run(two, *shared)
    assert code == 0, text


@pytest.mark.slow
def test_a_lost_machine_is_75(two: list[TestMachine]) -> None:
    """The last one here: the worker does not come back."""
    head, worker = two
    fails = "import time, sys; print('BEGUN', flush=True); time.sleep(3); sys.exit(1)"
    begun = head.run_ray("python", "-c", fails, HF_TOKEN="new")
    assert begun.stdout
    for line in begun.stdout:
        if line.startswith("BEGUN"):
            break
    worker.lose()
    text, _ = begun.communicate(timeout=120)
    assert begun.returncode == 75, text


def write_dump(path: Path) -> None:
    """A few conversations."""
    talk = [{"from": "human", "value": "How old is the sea?"}, {"from": "gpt", "value": "Very."}]
    path.write_text(json.dumps([{"id": "a", "conversations": talk}] * 3))
