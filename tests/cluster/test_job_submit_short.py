"""Each app as a Ray job: `cluster/run_ray.sh` on a real local Ray with its dashboard and token."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.machines import lone_machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.xdist_group("jobs"),  # its Ray is not the session's
]

CHATS = [
    {
        "id": f"c{i}",
        "conversations": [
            {"from": "human", "value": f"How many legs do {i} spiders have?"},
            {"from": "gpt", "value": f"<p>{i} spiders have {8 * i} legs together.</p>"},
        ],
    }
    for i in range(2, 30)
]
APPS = ("data", "train", "serve", "eval")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with lone_machine(tmp_path_factory.mktemp("node")) as env:
        yield env


def job(node: dict[str, str], *command: str) -> str:
    """Run one command as a job through run_ray.sh; its output."""
    done = subprocess.run(
        [f"{node['HOME']}/sky_workdir/cluster/run_ray.sh", *command],
        env=node,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_each_app_runs_as_a_submitted_job(node: dict[str, str], tmp_path: Path) -> None:
    raw, clean = tmp_path / "raw.json", tmp_path / "clean"
    raw.write_text(json.dumps(CHATS))
    app = ("python", "-W", "ignore", "-m")
    commands = [
        (*app, "apps.data", "clean", str(raw), "--out", str(clean), "--log-format", "json"),
        (*app, "apps.train", "plan", "--preset", "vicuna-7b", "--gpus", "8xA100-80GB"),
        (*app, "apps.serve", "run", "--help"),
        (*app, "apps.eval", "replay"),
    ]
    with ThreadPoolExecutor(2) as pool:
        outputs = dict(zip(APPS, pool.map(lambda c: job(node, *c), commands), strict=True))
    assert json.loads((clean / "ledger.json").read_text())["records"]["kept"] > 0
    assert "hours" in outputs["train"]
    assert "--port" in outputs["serve"]
    assert "513" in outputs["eval"]


def test_a_job_with_bad_input_fails_with_its_sentence(node: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="names no file"):
        job(node, "python", "-m", "apps.data", "clean", "/not/there.json", "--out", "/tmp/never")
