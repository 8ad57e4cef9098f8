"""Relative quality: every model's score as a share of the baseline's, as in the blog's Figure 1.

Two models that were scored side by side are compared by their totals in that pair. Where a model
never met the baseline, its quality is chained through one that met both: baseline / vicuna in
their pair x vicuna / chatgpt in theirs. Scores given to answers alone are compared by their means.
"""

from collections.abc import Mapping, Sequence

from apps.eval.figures.models import PairRow, RelativeQuality
from apps.eval.scores.statistics import Interval

Totals = Mapping[tuple[str, str], float]


def relative_quality(
    means: Mapping[str, float],
    pairs: Sequence[PairRow],
    baseline: str | None,
    scale: Interval = (1.0, 10.0),
) -> RelativeQuality | None:
    """None without scores, and on a scale that reaches 0 or below: a score is then no share."""
    if not means or scale[0] <= 0:
        return None
    best = max(means, key=lambda model: means[model])
    anchor = baseline if baseline is not None and baseline in means else best
    if means[anchor] <= 0:
        return None
    ratios = _pair_ratios(pairs)
    percent: dict[str, float] = {}
    through: dict[str, str] = {}
    for model, mean in means.items():
        hub = _hub(model, anchor, ratios)
        if model == anchor:
            share = 1.0
        elif (model, anchor) in ratios:
            share = ratios[model, anchor]
        elif hub is not None:
            share, through[model] = ratios[model, hub] * ratios[hub, anchor], hub
        else:
            share = mean / means[anchor]
        percent[model] = 100.0 * share
    return RelativeQuality(baseline=anchor, percent=percent, through=through)


def _pair_ratios(pairs: Sequence[PairRow]) -> Totals:
    ratios: dict[tuple[str, str], float] = {}
    for row in pairs:
        totals, (first, second) = row.score_totals, row.models
        if totals and totals.first and totals.second:
            ratios[first, second] = totals.first / totals.second
            ratios[second, first] = totals.second / totals.first
    return ratios


def _hub(model: str, anchor: str, ratios: Totals) -> str | None:
    """A model that met both, the first by name."""
    met = {second for first, second in ratios if first == model}
    return min((hub for hub in met if (hub, anchor) in ratios), default=None)
