"""Boards and alerts ask only for metrics that the apps define; alerts fire when they should.

test_monitoring_live.py has a real Prometheus find them at the running apps.
"""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.cluster.promql import MONITORING, asked, metric_names, panels, rules

HERE = Path(__file__).parent
APPS = HERE.parents[1] / "apps"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def defined() -> set[str]:
    """As Prometheus shows them, from the places where the apps define them."""
    from apps.serve.gateway.metrics import GatewayMetrics, render

    ray = {
        *(f"ray_cria_data_{name}" for name in constant("data/pipeline.py", "HELP")),
        *(f"ray_cria_train_{name}" for name in constant("train/rank.py", "GAUGES")),
        *(f"ray_cria_eval_{name}" for name in constant("eval/judging/on_ray.py", "COUNTERS")),
        *(f"ray_cria_eval_{name}" for name in constant("eval/judging/on_ray.py", "GAUGES")),
    }
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    gateway = {
        f"{family.name}{ending}"
        for family in GatewayMetrics().registry.collect()
        for ending in endings[family.type]
    }
    replica = dict.fromkeys(replica_numbers(), 1.0)
    scrape = render([], {"model": [replica]}, {"pool": 1})
    return ray | gateway | set(re.findall(r"^(\w+)\{", scrape, re.M))


def constant(file: str, name: str) -> Iterable[str]:
    """A module's table, read without the seconds that importing Ray takes."""
    for node in ast.parse((APPS / file).read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{file} has no {name}")


def replica_numbers() -> set[str]:
    """What each replica says of itself: the keys that its methods `metrics` return."""
    return {
        key
        for file in ("deployment.py", "engine/torch/engine.py")
        for body in re.findall(
            r"def metrics\(self\).*?^        \}$", (APPS / "serve" / file).read_text(), re.M | re.S
        )
        for key in re.findall(r'"(\w+)":', body)
    }


def test_every_metric_of_a_board_or_an_alert_is_one_that_an_app_defines() -> None:
    assert len(asked()) >= 30
    assert asked() - defined() == set()


def test_every_metric_of_training_and_judging_has_a_panel() -> None:
    shown = set().union(*(metric_names(expression) for _, expression in panels()))
    assert {n for n in defined() if n.startswith(("ray_cria_eval_", "ray_cria_data_"))} <= shown
    assert {n for n in defined() if n.startswith("ray_cria_train_")} <= shown


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le, model) (rate(a_total{b="c{d}"}[5m])) / 1e3', {"a_total"}),
        ("histogram_quantile(0.95, sum by (le) (rate(a_bucket[5m]))) > 10", {"a_bucket"}),
        ("time() - a:b > 3600 and on (c) (d offset 15m or vector(0))", {"a:b", "d"}),
    ],
)
def test_the_metrics_of_an_expression(expression: str, names: set[str]) -> None:
    assert metric_names(expression) == names


def test_a_board_is_complete() -> None:
    boards = [json.loads(path.read_text()) for path in (MONITORING / "boards").glob("*.json")]
    assert {board["uid"] for board in boards} == {
        f"cria-{a}" for a in ("data", "train", "serve", "eval")
    }
    for board in boards:
        places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
        assert len(set(places)) == len({p["id"] for p in board["panels"]}) == len(board["panels"])


@needs_promtool
@pytest.mark.parametrize("command", [("config", "prometheus.yml"), ("rules", "alerts.yml")])
def test_prometheus_own_check_takes_the_file(command: tuple[str, str]) -> None:
    kind, name = command
    checked = subprocess.run(
        ["promtool", "check", kind, MONITORING / name], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_each_alert_fires_on_what_it_is_for_and_not_before() -> None:
    """The series and the expected alerts stand in alerts_fire.yml."""
    tests = HERE / "alerts_fire.yml"
    text = tests.read_text()
    alerts = [rule["alert"] for rule in rules() if "alert" in rule]
    assert [name for name in alerts if text.count(f"alertname: {name}\n") < 2] == []
    checked = subprocess.run(
        ["promtool", "test", "rules", tests], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
