"""The dashboard asks only for metrics that the apps export."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def source(app: str) -> str:
    return "".join(path.read_text() for path in (ROOT / "apps" / app).rglob("*.py"))


def exported() -> set[str]:
    """Names in the apps' sources, as Prometheus shows them."""
    gauges = re.search(r"^GAUGES = \((.*?)\)$", source("train"), re.M | re.S)
    assert gauges
    trained = {f"ray_cria_train_{name}" for name in re.findall(r'"(\w+)"', gauges[1])}
    counted = {f"ray_cria_data_{name}" for name in re.findall(r'count\("(\w+)"', source("data"))}
    gateway = set(re.findall(r'"(cria_\w+)"', source("serve")))
    series = {f"{name}_{end}" for name in gateway for end in ("total", "bucket")}
    return trained | counted | gateway | series


def test_every_panel_shows_an_exported_metric() -> None:
    dashboard = json.loads((ROOT / "cluster/grafana/cria.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"(?:ray_)?cria_\w+", target["expr"])
    }
    assert len(asked) >= 10
    assert asked - exported() == set()
