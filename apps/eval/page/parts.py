"""The small pieces that report.html and curve.html are made of."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from apps.eval.page import charts


def card(figure: str, what: str) -> str:
    return (
        f'<div class="card"><div class="figure">{escape(figure)}</div>'
        f'<div class="what">{escape(what)}</div></div>'
    )


def of(row: Mapping[str, Any]) -> str:
    return f"{row['n']} of {row['total']}"


def dot(models: Sequence[str], name: str) -> str:
    return f'<span class="dot" style="background:{charts.color(models, name)}"></span>'


def asset(name: str) -> str:
    return files("apps.eval.page").joinpath(name).read_text(encoding="utf-8")
