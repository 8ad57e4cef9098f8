"""Intervals and agreement: weighting whole questions, Cohen's kappa, Krippendorff's alpha.

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
ROUNDING = 1e-9
"""what rounding may leave of a sum that is 0, as a share of the most it can be"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How a bootstrap draws questions."""

    num_resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95


def mean_interval(
    values_by_question: Mapping[str, Sequence[float]],
    scale: Interval,
    resampling: Resampling = Resampling(),
) -> Interval:
    """Interval of the mean of all values, which lie on `scale`; questions are the unit.

    The Bayesian bootstrap (Rubin 1981) with half a question more at either end of the scale, so
    that one question, or ten that agree, do not claim certainty. For shares of wins it is
    Jeffreys's interval: k of n won gives Beta(k + 1/2, n - k + 1/2).
    """
    sums_Q = np.array([sum(values) for values in values_by_question.values()], np.float64)
    counts_Q = np.array([len(values) for values in values_by_question.values()], np.float64)
    size = counts_Q.mean()
    ends = [(scale[0] * size, size), (scale[1] * size, size)]
    low, high = _resampled_ratio(sums_Q, counts_Q, ends, 0.5, resampling)
    values = [value for mine in values_by_question.values() for value in mine]
    # Jeffreys's interval, too, is closed at an end of the scale that all values share.
    return (
        scale[0] if max(values) <= scale[0] else low,
        scale[1] if min(values) >= scale[1] else high,
    )


def ratio_interval(
    over_Q: Floats,
    under_Q: Floats,
    scale: Interval,
    resampling: Resampling = Resampling(),
) -> Interval:
    """Interval of sum(over) / sum(under), both scored on `scale` question by question.

    As in `mean_interval`, with an eighth of a question in which one is worst and the other best.
    """
    ends = [scale, (scale[1], scale[0])]
    return _resampled_ratio(over_Q, under_Q, ends, 0.125, resampling)


def _resampled_ratio(
    over_Q: Floats,
    under_Q: Floats,
    ends: Sequence[Interval],
    end_shape: float,
    resampling: Resampling,
) -> Interval:
    """Quantiles of the ratio under random weights of questions and of the two ends."""
    rng = np.random.default_rng(resampling.seed)
    over, under = (np.zeros(resampling.num_resamples) for _ in range(2))
    for row in range(resampling.num_resamples):
        weight_Q = rng.standard_exponential(len(over_Q))
        over[row], under[row] = weight_Q @ over_Q, weight_Q @ under_Q
    for end_over, end_under in ends:
        weight_B = rng.standard_gamma(end_shape, resampling.num_resamples)
        over += weight_B * end_over
        under += weight_B * end_under
    tail = (1.0 - resampling.confidence) / 2
    low, high = np.quantile(over / under, [tail, 1.0 - tail], method="weibull")
    return (float(low), float(high))


def questions_needed(
    differences_Q: Floats, most: float, z: float = 1.96, z_power: float = 0.84
) -> int | None:
    """Questions with which a 95 % interval of the mean difference leaves 0 four times in five.

    The normal approximation n = ((z + z_power) s / d)^2 + z^2 / 2 (Guenther 1981). The spread s has
    half a question more at either end of -most..most, so that few equal differences do not promise
    too much. None if the mean is 0, but for what rounding leaves of it.

    60 wins and 40 losses: d = .1, s = .5, so (2.8 x .49 / .1)^2 + 2, about 190 questions.
    """
    mean = float(np.mean(differences_Q))
    if abs(mean) <= ROUNDING * most:
        return None
    squares = float(np.sum((differences_Q - mean) ** 2)) + 0.5 * (most - mean) ** 2
    squares += 0.5 * (most + mean) ** 2
    spread = np.sqrt(squares / (len(differences_Q) + 1))
    return int(np.ceil(((z + z_power) * spread / mean) ** 2 + z * z / 2))


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
    pooled = [value for values in pairable for value in values]
    if len(pooled) < 2:
        return float("nan")
    observed = sum(
        _sum_of_distances(values, interval) / (len(values) - 1) for values in pairable
    ) / len(pooled)
    expected = _sum_of_distances(pooled, interval) / (len(pooled) * (len(pooled) - 1))
    return 1.0 if expected == 0 else 1.0 - observed / expected


def _sum_of_distances(values: Sequence[float], interval: bool) -> float:
    """Of all ordered pairs, from sums and counts alone. Equal values are exactly 0 apart.

    1, 1, 4: intervals 2 (3 x 9 - 3^2) = 36, which is 4 x 3^2; nominal 3^2 - (2^2 + 1^2) = 4
    """
    if interval:
        # Distances do not change with the origin, and stay exact near it.
        near = [value - values[0] for value in values]
        squares = sum(value * value for value in near)
        return 2.0 * (len(near) * squares - sum(near) ** 2)
    return float(len(values) ** 2 - sum(count**2 for count in Counter(values).values()))
