"""curve.html of `watch`: the score over training steps, with a link to every report."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.eval.judging.offline import LABEL, is_offline
from apps.eval.page.charts import CurvePoint
from apps.eval.page.parts import fill


def render_curve(points: Sequence[Mapping[str, Any]], run: str) -> str:
    """The whole page as text; `points` are the lines of curve.jsonl, in order of steps."""
    scores = [_point(point["step"], point, "score", 1.0) for point in points]
    accuracies = [
        _point(point["step"], point["accuracy"], "rate", 100.0)
        for point in points
        if point["accuracy"]
    ]
    judge = points[-1]["judge"]
    return fill(
        "curve.html",
        run=run,
        judge=LABEL if is_offline(judge) else judge,
        scores=scores,
        accuracies=accuracies,
        points=points,
    )


def _point(step: int, figures: Mapping[str, Any], value: str, scale: float) -> CurvePoint:
    return CurvePoint(
        step=step,
        value=scale * figures[value],
        low=scale * figures["low"],
        high=scale * figures["high"],
    )
