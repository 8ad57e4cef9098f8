"""Intervals and agreement: resampling whole questions, Cohen's kappa, Krippendorff's alpha.

Questions are the unit of sampling everywhere: two orders, repeats and judges of one question say
less than as many questions would.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How a bootstrap draws questions."""

    num_resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95


def mean_interval(
    values_by_question: Mapping[str, Sequence[float]], resampling: Resampling = Resampling()
) -> Interval:
    """Bootstrap interval of the mean of all values, resampling questions."""
    sums = np.array([sum(values) for values in values_by_question.values()])
    counts = np.array([len(values) for values in values_by_question.values()])
    return ratio_interval(sums, counts, resampling)


def ratio_interval(
    over_Q: Floats, under_Q: Floats, resampling: Resampling = Resampling()
) -> Interval:
    """Bootstrap interval of sum(over) / sum(under), resampling questions in pairs."""
    rng = np.random.default_rng(resampling.seed)
    picks = rng.integers(len(over_Q), size=(resampling.num_resamples, len(over_Q)))
    under = np.asarray(under_Q, np.float64)[picks].sum(1)
    ratios = np.asarray(over_Q, np.float64)[picks].sum(1) / np.where(under == 0, np.nan, under)
    tail = (1.0 - resampling.confidence) / 2
    if np.isnan(ratios).all():
        return (float("nan"), float("nan"))
    low, high = np.nanquantile(ratios, [tail, 1.0 - tail])
    return (float(low), float(high))


def wilson_interval(successes: float, total: int, z: float = 1.96) -> Interval:
    """Wilson's score interval of a share (JASA 22, 1927)."""
    if total == 0:
        return (0.0, 1.0)
    share = successes / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return (max(0.0, float(center - half)), min(1.0, float(center + half)))


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Agreement of two raters beyond chance (Cohen 1960); 1.0 if both never vary and agree."""
    total = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / total
    counts_first, counts_second = Counter(first), Counter(second)
    chance = sum(counts_first[value] * counts_second[value] for value in counts_first) / total**2
    return 1.0 if chance == 1.0 else (observed - chance) / (1.0 - chance)


def krippendorff_alpha(ratings: Mapping[str, Mapping[Item, float]], interval: bool) -> float:
    """Krippendorff's alpha of {rater: {item: value}}; missing ratings are allowed.

    Ordinal-free: nominal distance, or squared difference when `interval` (Krippendorff 2011,
    "Computing Krippendorff's Alpha-Reliability"). nan when fewer than two values can be paired.
    """
    by_item: dict[Item, list[float]] = defaultdict(list)
    for values in ratings.values():
        for item, value in values.items():
            by_item[item].append(value)
    pairable = [values for values in by_item.values() if len(values) > 1]
    pooled = np.array([value for values in pairable for value in values])
    if len(pooled) < 2:
        return float("nan")
    observed = sum(
        float(_distances(np.array(values), interval).sum()) / (len(values) - 1)
        for values in pairable
    ) / len(pooled)
    expected = float(_distances(pooled, interval).sum()) / (len(pooled) * (len(pooled) - 1))
    return 1.0 if expected == 0 else 1.0 - observed / expected


def _distances(values: Floats, interval: bool) -> Floats:
    difference = values[:, None] - values[None, :]
    return difference**2 if interval else (difference != 0).astype(np.float64)
