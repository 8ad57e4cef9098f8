"""The Kubernetes files by the schemas of Kubernetes, and of KubeRay where KUBERAY_CRDS names them.

    KUBERAY_CRDS=kuberay/ray-operator/config/crd/bases pytest tests/cluster/test_kuberay.py

No Kubernetes is here to apply them to.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from sqlalchemy import make_url

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "cluster" / "kuberay"
FILES = sorted(KUBERAY.glob("ray*.yaml"))
STORES = KUBERAY / "stores.yaml"
RAY_VERSION = re.search(r"^ray\[.*\]==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M)


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def cluster(resource: dict[str, Any]) -> dict[str, Any]:
    spec = resource["spec"]
    return spec["rayClusterSpec"] if resource["kind"] == "RayJob" else spec["rayClusterConfig"]


def groups(resource: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster(resource)["headGroupSpec"], *cluster(resource)["workerGroupSpecs"]]


def containers(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in groups(resource):
        yield from group["template"]["spec"]["containers"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ray_is_the_pinned_version_and_asks_for_a_token(path: Path) -> None:
    spec = cluster(load(path))
    assert RAY_VERSION and spec["rayVersion"] == RAY_VERSION[1]
    assert spec["authOptions"] == {"mode": "token"}


def checked(resource: dict[str, Any]) -> None:
    """By the schemas of Kubernetes itself; a key that it does not know is an error."""
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(resource, validate.latest_version(), strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_pod_is_one_that_kubernetes_takes(path: Path) -> None:
    for group in groups(load(path)):
        checked({"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]})


def test_the_check_refuses_a_misspelt_key() -> None:
    template = groups(load(FILES[0]))[0]["template"]
    template["spec"]["containers"][0]["comand"] = ["true"]
    with pytest.raises(Exception, match="comand"):
        checked({"apiVersion": "v1", "kind": "PodTemplate", "template": template})


def test_the_stores_are_resources_that_kubernetes_takes() -> None:
    for resource in yaml.safe_load_all(STORES.read_text()):
        checked(resource)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A CRD's schema that refuses what it does not name, as the server does with --validate."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {k: v for k, v in schema.items() if not k.startswith("x-") and k != "format"}
    if "properties" in kept:
        kept["properties"] = {k: strict(v) for k, v in kept["properties"].items()}
        kept["additionalProperties"] = False
    elif isinstance(kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = strict(kept["additionalProperties"])
    if "items" in kept:
        kept["items"] = strict(kept["items"])
    return kept


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_kuberays_own_schema_takes_the_file(path: Path) -> None:
    folder = os.environ.get("KUBERAY_CRDS")
    if not folder:
        pytest.skip("KUBERAY_CRDS names no folder of KubeRay's schemas")
    resource = load(path)
    definition = load(Path(folder) / f"ray.io_{resource['kind'].lower()}s.yaml")
    (version,) = (one for one in definition["spec"]["versions"] if one["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(resource, schema)


KNOWN = {
    "cluster": {
        *("rayVersion", "authOptions", "gcsFaultToleranceOptions", "enableInTreeAutoscaling"),
        *("autoscalerOptions", "headGroupSpec", "workerGroupSpecs"),
    },
    "group": {
        *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    },
    "fault tolerance": {"redisAddress", "redisPassword"},
    "autoscaler": {"version", "idleTimeoutSeconds"},
}
"""Keys of KubeRay 1.5's ray.io/v1 that are used here; the schema itself is not at hand in CI."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_key_is_used_that_kuberay_does_not_know(path: Path) -> None:
    spec = cluster(load(path))
    assert set(spec) <= KNOWN["cluster"]
    assert set(spec.get("gcsFaultToleranceOptions", {})) <= KNOWN["fault tolerance"]
    assert set(spec.get("autoscalerOptions", {})) <= KNOWN["autoscaler"]
    for group in groups(load(path)):
        assert set(group) <= KNOWN["group"]


@pytest.mark.parametrize("path", [*FILES, STORES], ids=lambda path: path.name)
def test_every_secret_that_is_read_is_one_that_the_reader_was_told_to_make(path: Path) -> None:
    text = path.read_text() + (KUBERAY / "rayservice.yaml").read_text() * (path == STORES)
    read = set(re.findall(r"secretKeyRef: {name: cria, key: (\w+)}", text))
    made = set(re.findall(r"--from-literal=(\w+)=", text))
    assert read and read <= made


def test_the_service_outlives_its_head_and_a_machine() -> None:
    resource = load(KUBERAY / "rayservice.yaml")
    spec, config = cluster(resource), yaml.safe_load(resource["spec"]["serveConfigV2"])
    stores = [one for one in yaml.safe_load_all(STORES.read_text()) if one["kind"] == "Service"]
    addresses = {f"{one['metadata']['name']}:{one['spec']['ports'][0]['port']}" for one in stores}
    page = next(app for app in config["applications"] if app["name"] == "page")["args"]["page"]
    assert spec["gcsFaultToleranceOptions"]["redisAddress"] in addresses
    assert make_url(page["database_url"]).host in {name.split(":")[0] for name in addresses}
    assert make_url(page["database_url"]).password is None
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (gateway,) = config["applications"][0]["deployments"]
    (pods,) = (one for one in spec["workerGroupSpecs"] if one["groupName"] == "gateway")
    assert gateway["max_replicas_per_node"] == 1
    assert gateway["num_replicas"] == pods["minReplicas"] == 2


def test_pods_of_a_gpu_come_and_go_with_the_load() -> None:
    spec = cluster(load(KUBERAY / "rayservice.yaml"))
    (pods,) = (one for one in spec["workerGroupSpecs"] if one["groupName"] == "gpu")
    assert spec["enableInTreeAutoscaling"] is True
    assert pods["minReplicas"] < pods["maxReplicas"]


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
    gateway = written["applications"][0]["deployments"][0]
    assert gateway.pop("max_replicas_per_node") == 1  # a laptop would have no place for the second
    given = gateway["user_config"]
    page = next(app for app in written["applications"] if app["name"] == "page")["args"]["page"]
    stated = {"models": given["models"], "gateway": given["gateway"], "page": page}
    served = config.from_dict(ServeConfig, stated)
    assert serve_config(served) == written
    assert {key.sha256 for key in served.gateway.api_keys} == {"0" * 64}
