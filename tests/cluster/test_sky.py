"""The SkyPilot files, judged offline by SkyPilot itself: its strict parser and its optimizer."""

import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.common.errors import ConfigError
from apps.common.spot.trace import ON_DEMAND
from apps.train.model.hardware import ACCELERATORS
from cluster.sky_jobs import machines_of, task_config

pytestmark = [pytest.mark.sky, pytest.mark.xdist_group("sky")]

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
TASKS = ("train", "serve", "serve-head", "serve-worker", "data", "eval", "dev")
SPOT = {"train", "data", "serve-worker"}
"""what recovers by itself; a chat would be cut short, a question to a judge be paid twice"""

# A tiny price list in the format of SkyPilot's catalogs. The figures are made up.
VMS_COLUMNS = (
    "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Region,"
    "AvailabilityZone,Price,SpotPrice"
)
AWS_VMS = [
    "p4de.24xlarge,96,1152,A100-80GB,8,gpus,us-east-1,us-east-1a,41,12",
    "p4de.24xlarge,96,1152,A100-80GB,8,gpus,us-west-2,us-west-2a,42,13",
    "p5.48xlarge,192,2048,H100,8,gpus,us-east-1,us-east-1a,98,30",
    "g6.4xlarge,16,64,L4,1,gpus,us-east-1,us-east-1a,1.3,.5",
    "m6i.xlarge,4,16,,,,us-east-1,us-east-1a,.2,.08",
    "m6i.4xlarge,16,64,,,,us-east-1,us-east-1a,.8,.3",
]
GCP_VMS = [
    "a2-ultragpu-8g,96,1360,,,,us-central1,us-central1-a,9,3",
    ",,,A100-80GB,8,gpus,us-central1,us-central1-a,31,11",
    "g2-standard-4,4,16,,,,us-central1,us-central1-a,.5,.2",
    ",,,L4,1,gpus,us-central1,us-central1-a,.5,.2",
    "n2-standard-4,4,16,,,,us-central1,us-central1-a,.2,.05",
    "n2-standard-16,16,64,,,,us-central1,us-central1-a,.8,.2",
]


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """SkyPilot with a home of its own that holds the tiny price list."""
    home = tmp_path_factory.mktemp("home")
    catalogs = home / ".sky/catalogs/v8"
    for cloud, rows in {"aws": AWS_VMS, "gcp": GCP_VMS}.items():
        (catalogs / cloud).mkdir(parents=True)
        (catalogs / cloud / "vms.csv").write_text("\n".join([VMS_COLUMNS, *rows]) + "\n")
    (catalogs / "common").mkdir()
    accelerators = "".join(f"{name},\n" for name in ("A100-80GB", "H100", "L4", "L40S"))
    (catalogs / "common/accelerators.csv").write_text("AcceleratorName,Clouds\n" + accelerators)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("HOME", str(home))
        patch.setenv("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
        warnings.simplefilter("ignore")
        yield pytest.importorskip("sky")


def given(config: dict[str, Any], key: str, value: str) -> list[tuple[str, str]]:
    """Every entry that the file leaves to the command line."""
    return [(name, value) for name, default in config.get(key, {}).items() if default is None]


def load(sky: Any, name: str) -> Any:
    config = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    return sky.Task.from_yaml_config(
        config,
        env_overrides=given(config, "envs", "s3://bucket/x"),
        secrets_overrides=given(config, "secrets", "secret"),
    )


def test_every_yaml_here_is_a_task_that_is_tested() -> None:
    others = {"models", "models-head", "runtime_env", "sky_plugins"}
    assert {path.stem for path in CLUSTER.glob("*.yaml")} - others == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_the_strict_parser_takes_the_file(sky: Any, name: str) -> None:
    task = load(sky, name)
    assert task.setup
    assert {resources.use_spot for resources in task.resources} == {name in SPOT}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_writes_to_its_bucket_itself(sky: Any, name: str) -> None:
    """What a mount has cached goes with the machine."""
    assert not load(sky, name).storage_mounts


@pytest.mark.parametrize("place", ["gcp/us-central1/us-central1-a", ON_DEMAND])
def test_the_strict_parser_takes_the_task_that_is_bound_to_a_place(sky: Any, place: str) -> None:
    envs = {"BUCKET": "s3://b", "BASE": "hub/id", "RUN": "vicuna"}
    task = sky.Task.from_yaml_config(task_config(CLUSTER / "train.yaml", place, envs))
    for resources in task.resources:
        assert resources.use_spot is (place != ON_DEMAND)
        assert resources.job_recovery["recover_on_exit_codes"] == [75]


@pytest.mark.parametrize("name", sorted({one.name for one in ACCELERATORS}))
def test_skypilot_knows_the_accelerators_of_a_plan(sky: Any, name: str) -> None:
    machines = machines_of(16, name, 2)
    envs = {"BUCKET": "s3://b", "BASE": "hub/id"}
    config = task_config(CLUSTER / "train.yaml", ON_DEMAND, envs, (), machines)
    task = sky.Task.from_yaml_config(config)
    assert task.num_nodes == 2
    assert all(resources.accelerators == machines.accelerators for resources in task.resources)


def test_gpus_that_machines_do_not_share_evenly_are_refused() -> None:
    with pytest.raises(ConfigError, match="9 GPUs on 2 machines"):
        machines_of(9, "H100", 2)


def test_the_strict_parser_refuses_a_misspelt_key(sky: Any) -> None:
    config = yaml.safe_load((CLUSTER / "train.yaml").read_text())
    config["resources"]["use_sport"] = True
    with pytest.raises(Exception, match="use_sport"):
        sky.Task.from_yaml_config(config, env_overrides=given(config, "envs", "x"))


@pytest.mark.parametrize("name", sorted(SPOT))
def test_a_spot_task_recovers_from_a_reclaimed_machine_but_not_from_every_error(
    sky: Any, name: str
) -> None:
    for resources in load(sky, name).resources:
        recovery = resources.job_recovery
        assert recovery["strategy"] == "EAGER_NEXT_REGION"
        assert recovery["recover_on_exit_codes"] == [75]
        # Bad input (2) must not start new machines; submit_job tries what else failed on the same.
        assert "max_restarts_on_errors" not in recovery


@pytest.mark.parametrize("name", [name for name in TASKS if name != "dev"])
def test_the_optimizer_finds_the_task_on_two_clouds_within_its_price(
    sky: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds = [sky.clouds.AWS(), sky.clouds.GCP()]
    chosen = [optimize(sky, load(sky, name), [cloud], monkeypatch) for cloud in clouds]
    for resources in chosen:
        assert resources.use_spot == (name in SPOT)
        assert resources.get_cost(3600) <= resources.max_hourly_cost
    assert [str(resources.cloud) for resources in chosen] == ["AWS", "GCP"]


def optimize(sky: Any, task: Any, clouds: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The machine that SkyPilot would take when only these clouds are enabled."""
    from sky import check, optimizer
    from sky.catalog import aws_catalog

    monkeypatch.setattr(check, "get_cached_enabled_clouds_or_refresh", lambda *_, **__: clouds)
    monkeypatch.setattr(aws_catalog, "_fetch_and_apply_az_mapping", lambda df: df)
    with sky.Dag() as dag:
        dag.add(task)
    optimizer.Optimizer.optimize(dag, quiet=True)
    return task.best_resources


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("section", ["setup", "run"])
def test_the_shell_of_every_section_is_sound(name: str, section: str) -> None:
    script = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text()).get(section, "")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert "conda" not in script
    assert "ray stop" not in script
