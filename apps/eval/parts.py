"""The small pieces that the sections of report.html are made of."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from apps.eval import charts


def card(figure: str, what: str) -> str:
    return (
        f'<div class="card"><div class="figure">{escape(figure)}</div>'
        f'<div class="what">{escape(what)}</div></div>'
    )


def of(row: Mapping[str, Any]) -> str:
    return f"{row['n']} of {row['total']}"


def dot(models: Sequence[str], name: str) -> str:
    return f'<span class="dot" style="background:{charts.color(models, name)}"></span>'
