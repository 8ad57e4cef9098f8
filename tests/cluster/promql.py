"""The metrics that the boards and the alerts ask for, by their names."""

import json
import re
from pathlib import Path
from typing import cast

import yaml

MONITORING = Path(__file__).resolve().parents[2] / "cluster/monitoring"
_NO_METRICS = (
    r'"[^"]*"',  # strings first: a brace in one is no selector
    r"\{[^}]*\}",
    r"\[[^\]]*\]",
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)",
    r"\boffset\s+\w+",
    r"\b(?:and|or|unless|bool)\b",
)


def metric_names(expression: str) -> set[str]:
    """The metrics of a PromQL expression.

    `sum by (le) (rate(a_total{b="c"}[5m])) / 1e3` has one, a_total: a word is a function where a
    bracket follows, and no metric where it stands inside a selector or names a label.
    """
    for pattern in _NO_METRICS:
        expression = re.sub(pattern, " ", expression)
    return set(re.findall(r"(?<![\w.:])[A-Za-z_:][\w:]*(?![\w:]|\s*\()", expression))


def panels() -> list[tuple[str, str]]:
    """(board and title, expression) of every line of every panel."""
    return [
        (f"{path.stem}: {panel['title']}", target["expr"])
        for path in sorted((MONITORING / "boards").glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]


def rules() -> list[dict[str, str]]:
    """Every alert and recorded series."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [cast(dict[str, str], rule) for group in groups for rule in group["rules"]]


def recorded() -> set[str]:
    """Series that Prometheus makes: of the rules, and whether it reached an address."""
    return {rule["record"] for rule in rules() if "record" in rule} | {"up"}


def asked() -> set[str]:
    """All metrics that some app has to write."""
    expressions = [expression for _, expression in panels()] + [rule["expr"] for rule in rules()]
    return set().union(*map(metric_names, expressions)) - recorded()
