"""Our task files launched by the real SkyPilot, on a Slurm of this machine.

    pytest -m sky_e2e tests/cluster/test_sky_e2e.py

The resources are Slurm's, and the Python environment is this one; what is run is what stands in
the files.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml

from apps.common.command.runtime import free_port
from apps.common.files import config as configs
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import load_tokenizer
from apps.train.checkpoint import checkpoint
from apps.train.loop.record import read_metrics
from tests.cluster.slurm_cloud import ROOT, SlurmCloud, slurm_cloud
from tests.made import byte_level_folder
from tests.train.conftest import ROW_TOKENS, save_model, save_pack, small_config

pytestmark = [pytest.mark.sky_e2e, pytest.mark.slow, pytest.mark.timeout(3600)]
NUM_LOSSES = 3
STEPS = 150
INTERVAL_STEPS = 20
WAIT_S = 1500.0


@pytest.fixture(scope="module")
def cloud() -> Iterator[SlurmCloud]:
    with slurm_cloud() as cloud:
        checked = cloud.sky("check", "slurm", timeout_s=300)
        assert "Slurm: enabled" in checked.stdout, checked.stdout + checked.stderr
        yield cloud


def task(cloud: SlurmCloud, name: str, run_words: Mapping[str, str] = MappingProxyType({})) -> str:
    """The task file with Slurm's resources; `run_words` are replaced in what it runs."""
    config = yaml.safe_load((ROOT / "cluster" / f"{name}.yaml").read_text())
    recovery = config["resources"].get("job_recovery", {})
    config["resources"] = {"infra": "slurm/local", "cpus": "2+", "job_recovery": recovery}
    config["num_nodes"] = 1
    config["workdir"] = str(ROOT)
    config["envs"]["CRIA_RAY_TEMP"] = f"/tmp/{cloud.folder.name}-ray"
    config["envs"]["RAY_DASHBOARD_AGENT_LISTEN_PORT"] = str(free_port())
    config["setup"] = f"ln -sfn {sys.prefix} .venv"
    for word, other in run_words.items():
        config["run"] = config["run"].replace(word, other)
    path = cloud.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


def given(**values: str) -> list[str]:
    return [word for name, value in values.items() for word in ("--env", f"{name}={value}")]


@pytest.fixture(scope="module")
def bucket(cloud: SlurmCloud) -> Path:
    """A folder that the cluster's user may write: with one node it is as good as a bucket."""
    folder = cloud.folder / "bucket"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_launch_of_clean_and_pack(cloud: SlurmCloud, bucket: Path) -> None:
    raw, tokenizer = cloud.folder / "raw.json", byte_level_folder(cloud.folder / "tokenizer")
    said = [("human", "How old is number {}?"), ("gpt", "As old as {} others, and a day more.")]
    chats = [
        {"id": str(i), "conversations": [{"from": w, "value": t.format(i)} for w, t in said]}
        for i in range(50)
    ]
    raw.write_text(json.dumps(chats))
    options = given(BUCKET=str(bucket), RAW=str(raw), TOKENIZER=str(tokenizer))
    options += ["--secret", "RAY_AUTH_TOKEN=" + "t" * 64]
    done = cloud.sky("launch", "-y", "-c", "clean-pack", task(cloud, "data"), *options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert json.loads((bucket / "clean/ledger.json").read_text())["records"]["kept"] == 50
    assert (bucket / "pack").is_dir()
    print(done.stdout[-1500:])
    assert cloud.sky("down", "-y", "clean-pack").returncode == 0


def test_bad_input_is_not_started_again(cloud: SlurmCloud, bucket: Path) -> None:
    options = given(BUCKET=str(bucket), RAW="/not/there.json", TOKENIZER="none")
    options += ["--secret", "RAY_AUTH_TOKEN=" + "t" * 64]
    begun = cloud.sky("jobs", "launch", "-y", "-d", "-n", "typo", task(cloud, "data"), *options)
    assert begun.returncode == 0, begun.stdout[-2000:] + begun.stderr[-2000:]
    record = ended(cloud, "typo")
    assert record["status"] == "FAILED", record
    queue = cloud.sky("jobs", "queue", "--all").stdout
    (line,) = [line for line in queue.splitlines() if " typo " in line]
    print(line)
    assert " 0 " in line, "no recovery"


def ended(cloud: SlurmCloud, name: str) -> dict[str, object]:
    deadline_s = time.monotonic() + WAIT_S
    while True:
        (record,) = [one for one in cloud.jobs() if one["name"] == name]
        if record["end_s"] is not None:
            return record
        assert time.monotonic() < deadline_s, record
        time.sleep(5)


def steps(run: Path) -> list[int]:
    if not (run / "metrics.jsonl").exists():
        return []
    return [record["step"] for record in read_metrics(str(run))]


def exported(model: Path) -> str:
    files = sorted(model.rglob("*.safetensors"))
    assert files
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def undisturbed(cloud: SlurmCloud, settings: Path, base: Path, pack: Path) -> str:
    """Digest of what the same run leaves when nothing happens."""
    run, model = cloud.folder / "alone", cloud.folder / "alone-model"
    places = ["--base", str(base), "--data", str(pack), "--out", str(run)]
    for words in (
        ["run", "--config", str(settings), *places],
        ["export", str(run), "--out", str(model)],
    ):
        command = [sys.executable, "-W", "ignore", "-m", "apps.train", *words]
        subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    return exported(model)


def test_a_job_that_loses_its_node_three_times_ends_as_if_undisturbed(
    cloud: SlurmCloud, bucket: Path
) -> None:
    base, pack, run = cloud.folder / "base", bucket / "pack-small", bucket / "runs/spot"
    byte_level_folder(base)
    write_template(str(base), load_template("llama-2", load_tokenizer(str(base))))
    save_model(base)
    pack.mkdir()
    save_pack(pack, base, num_rows=22, row_tokens=ROW_TOKENS, template="llama-2")
    settings = cloud.folder / "settings.yaml"
    config = replace(small_config(base, pack, run), steps=STEPS)
    saves = replace(config.checkpoint, interval_steps=INTERVAL_STEPS)
    settings.write_text(configs.dump(replace(config, checkpoint=saves)))
    alone = undisturbed(cloud, settings, base, pack)
    for file in (*base.rglob("*"), *pack.rglob("*")):  # another user reads them there
        file.chmod(file.stat().st_mode | (0o055 if file.is_dir() else 0o044))
    words = {'--preset "$PRESET"': "", "$BUCKET/pack": str(pack)}
    as_yaml = json.dumps(configs.load_yaml(str(settings)))
    options = given(BUCKET=str(bucket), BASE=str(base), RUN="spot", SETTINGS=as_yaml)
    path = task(cloud, "train", words)
    begun = cloud.sky("jobs", "launch", "-y", "-d", "-n", "spot", path, *options)
    assert begun.returncode == 0, begun.stdout[-2000:] + begun.stderr[-2000:]
    newest = 0
    for loss in range(1, NUM_LOSSES + 1):
        deadline_s, looked_s = time.monotonic() + WAIT_S, time.monotonic()
        while max(steps(run), default=0) < newest + INTERVAL_STEPS + INTERVAL_STEPS // 2:
            time.sleep(0.5)
            if time.monotonic() > min(looked_s + 60, deadline_s):
                (record,) = [one for one in cloud.jobs() if one["name"] == "spot"]
                assert record["end_s"] is None and time.monotonic() < deadline_s, record
                looked_s = time.monotonic()
        cloud.lose_machine()
        newest, kept = max(steps(run)), checkpoint.committed_step(str(run))
        print(f"{time.strftime('%H:%M:%S')} loss {loss} at step {newest}, saved {kept}", flush=True)
        assert newest - kept <= INTERVAL_STEPS
    assert ended(cloud, "spot")["status"] == "SUCCEEDED"
    assert exported(bucket / "models/spot") == alone
