"""The KubeRay files by shape; no Kubernetes here to apply them to."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "cluster" / "kuberay"
FILES = sorted(KUBERAY.glob("*.yaml"))
RAY_VERSION = re.search(r"^ray\[.*\]==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M)


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def cluster(resource: dict[str, Any]) -> dict[str, Any]:
    spec = resource["spec"]
    return spec["rayClusterSpec"] if resource["kind"] == "RayJob" else spec["rayClusterConfig"]


def containers(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    groups = [cluster(resource)["headGroupSpec"], *cluster(resource)["workerGroupSpecs"]]
    for group in groups:
        yield from group["template"]["spec"]["containers"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ray_is_the_pinned_version_and_asks_for_a_token(path: Path) -> None:
    spec = cluster(load(path))
    assert RAY_VERSION and spec["rayVersion"] == RAY_VERSION[1]
    assert spec["authOptions"] == {"mode": "token"}


def test_the_image_is_rays_own_of_the_pinned_version() -> None:
    base = re.search(r"^FROM rayproject/ray:(\S+?)-", (KUBERAY / "Dockerfile").read_text(), re.M)
    assert base and RAY_VERSION and base[1] == RAY_VERSION[1]


def test_the_image_takes_no_keys_and_nothing_that_a_run_made() -> None:
    left_out = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".env", "runs", "demo", "**/*.key", "**/*.safetensors"} <= set(left_out)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_pod_asks_for_what_it_may_use(path: Path) -> None:
    for container in containers(load(path)):
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert container["name"] in ("ray-head", "ray-worker")


def test_the_job_is_tried_again_and_cleaned_up() -> None:
    spec = load(KUBERAY / "rayjob-train.yaml")["spec"]
    assert spec["backoffLimit"] > 0 and spec["shutdownAfterJobFinishes"] is True


def test_a_reclaimed_pod_drains_its_node_within_its_grace_period() -> None:
    (group,) = cluster(load(KUBERAY / "rayjob-train.yaml"))["workerGroupSpecs"]
    pod = group["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    notice = re.search(r"spot_watch\.py --now (\d+); sleep (\d+)", hook)
    assert notice and notice[1] == notice[2]
    assert int(notice[2]) < pod["terminationGracePeriodSeconds"]


@pytest.mark.filterwarnings("ignore")  # of ray.serve's own imports
def test_the_service_is_what_serve_build_prints() -> None:
    from apps.common.files import config
    from apps.serve.applications import serve_config
    from apps.serve.config import ServeConfig

    written = yaml.safe_load(load(KUBERAY / "rayservice.yaml")["spec"]["serveConfigV2"])
    given = written["applications"][0]["deployments"][0]["user_config"]
    page = next(app for app in written["applications"] if app["name"] == "page")["args"]["page"]
    served = config.from_dict(ServeConfig, {**given, "page": page})
    assert serve_config(served) == written
    assert {key.sha256 for key in served.gateway.api_keys} == {"0" * 64}
