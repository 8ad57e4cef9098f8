"""curve.html of `watch`: the score over training steps, with a link to every report."""

from collections.abc import Sequence
from typing import TypedDict

from apps.eval.judging.offline import LABEL, is_offline
from apps.eval.page.charts import CurvePoint
from apps.eval.page.parts import fill


class AccuracyLine(TypedDict):
    rate: float
    low: float
    high: float


class CurveLine(TypedDict):
    """A line of curve.jsonl: how one checkpoint did."""

    step: int
    score: float
    low: float
    high: float
    n: int
    accuracy: AccuracyLine | None
    """of questions with a known answer"""
    judge: str
    report: str
    """from the curve's folder"""


def render_curve(points: Sequence[CurveLine], run: str) -> str:
    """The whole page as text; `points` are the lines of curve.jsonl, in order of steps."""
    scores = [
        CurvePoint(step=p["step"], value=p["score"], low=p["low"], high=p["high"]) for p in points
    ]
    accuracies = [
        CurvePoint(
            step=point["step"],
            value=100 * right["rate"],
            low=100 * right["low"],
            high=100 * right["high"],
        )
        for point in points
        if (right := point["accuracy"])
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
