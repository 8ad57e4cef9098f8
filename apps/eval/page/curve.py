"""curve.html of `watch`: the score over training steps, with a link to every report."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from apps.eval.judging.offline import LABEL, is_offline
from apps.eval.page import charts
from apps.eval.page.parts import asset


def render_curve(points: Sequence[Mapping[str, Any]], run: str) -> str:
    """The whole page as text; `points` are the lines of curve.jsonl, in order of steps."""
    scores = [{**point, "value": point["score"]} for point in points]
    panels = _panel("Mean score of 10", scores, 10.0)
    known = [point for point in points if point["accuracy"]]
    if known:
        percents = [
            {
                "step": point["step"],
                "value": 100 * point["accuracy"]["rate"],
                "low": 100 * point["accuracy"]["low"],
                "high": 100 * point["accuracy"]["high"],
            }
            for point in known
        ]
        panels += _panel("Held-out accuracy, %", percents, 100.0)
    judge = LABEL if is_offline(points[-1]["judge"]) else points[-1]["judge"]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(run)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{asset("page.css")}</style></head><body><header class="top"><h1>Training curve'
        f'</h1><p class="lead">{escape(run)}, judged by {escape(judge)}. Bars behind the points '
        f'are 95 % intervals.</p></header><main><div class="two">{panels}</div>'
        '<div class="panel"><table><tr><th>checkpoint</th><th class=n>score</th>'
        "<th class=n>judgments</th><th class=n>correct</th></tr>"
        f"{''.join(map(_row, points))}</table></div></main></body></html>"
    )


def _panel(title: str, points: Sequence[Mapping[str, float]], top: float) -> str:
    return f'<div class="panel"><h3>{title}</h3>{charts.curve(points, title, top)}</div>'


def _row(point: Mapping[str, Any]) -> str:
    found = point["accuracy"]
    correct = f"{found['correct']} of {found['total']}" if found else "&ndash;"
    return (
        f'<tr><td><a href="{escape(point["report"], quote=True)}">step {point["step"]}</a></td>'
        f"<td class=n>{point['score']:.2f}<br><span class=muted>{point['low']:.2f}&ndash;"
        f"{point['high']:.2f}</span></td><td class=n>{point['n']}</td>"
        f"<td class=n>{correct}</td></tr>"
    )
