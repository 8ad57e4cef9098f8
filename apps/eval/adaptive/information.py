"""Which contests to judge next, so that few of them settle the order of the models.

Two models whose order is open and whose gap is little known have most to tell each other. After
every round the strengths are fitted anew (Bradley-Terry) and the next contests go where they are
expected to decide most: the chance that the order of a pair is wrong, times the share of its gap's
variance that one more contest takes away. The order is settled when every two neighbours in it are
in their right order with the asked confidence, or have no contest left.

    strengths   A 1.2   B .5   C .4        errors of the gaps about .4
    P(wrong)    A-B .04        B-C .40     the next contests are between B and C

Design after the adaptive comparison of Chen et al., "Pairwise ranking aggregation in a crowdsourced
setting" (WSDM 2013), with the information of one Bernoulli outcome, p(1 - p), in its place.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import erf, sqrt

# numpy's reductions are typed as unknown for broadcast shapes:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import numpy as np
import numpy.typing as npt

from apps.common.ratings import bradley_terry

Floats = npt.NDArray[np.float64]
# Virtual ties between every two models: a prior that keeps a first win from settling anything.
PRIOR_TIES = 0.5
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


@dataclass(frozen=True, kw_only=True, slots=True)
class Standings:
    """What the contests so far say."""

    beta_M: Floats
    """strengths, log-odds"""
    variance_MM: Floats
    """of the gap of every two"""

    def doubt(self, first: int, second: int) -> float:
        """The chance that these two are not in the order that their strengths say."""
        gap = abs(float(self.beta_M[first] - self.beta_M[second]))
        return 0.5 * (1.0 - erf(gap / sqrt(2.0 * float(self.variance_MM[first, second]))))

    def neighbours(self) -> list[tuple[int, int]]:
        order = [int(model) for model in np.argsort(-self.beta_M)]
        return [*pairwise(order)]


def fit(wins_MM: Floats) -> Standings:
    """`wins_MM[i, j]`: how often i beat j, ties counted half."""
    beta_M = bradley_terry(wins_MM, PRIOR_TIES)
    games_MM = wins_MM + wins_MM.T + PRIOR_TIES * (1.0 - np.eye(len(beta_M)))
    return Standings(beta_M=beta_M, variance_MM=_gap_variance(_hessian(games_MM, beta_M)))


def is_settled(standings: Standings, left_MM: Floats, confidence: float) -> bool:
    """Whether every two neighbours that could still meet are in order."""
    return all(
        left_MM[pair] == 0 or standings.doubt(*pair) <= 1.0 - confidence
        for pair in standings.neighbours()
    )


def next_contests(
    standings: Standings, games_MM: Floats, left_MM: Floats, count: int
) -> list[tuple[int, int]]:
    """Up to `count` pairs to judge next, with repetition; `left_MM` says how many each has left.

    Each pick counts as if it were judged, so that a round spreads over the open places.
    """
    beta_M = standings.beta_M
    hessian_MM = _hessian(games_MM + PRIOR_TIES * (1.0 - np.eye(len(beta_M))), beta_M)
    gap_MM = np.abs(beta_M[:, None] - beta_M[None, :])
    weight_MM = _weight(beta_M)
    left_MM = np.triu(left_MM, 1).astype(np.float64)
    picked: list[tuple[int, int]] = []
    while len(picked) < count and left_MM.any():
        variance_MM = _gap_variance(hessian_MM)
        doubt_MM = 0.5 * (1.0 - _erf(gap_MM / np.sqrt(2.0 * variance_MM)))
        share_MM = weight_MM * variance_MM / (1.0 + weight_MM * variance_MM)
        value_MM = np.where(left_MM > 0, doubt_MM * share_MM, -1.0)
        first, second = divmod(int(value_MM.argmax()), len(beta_M))
        picked.append((first, second))
        left_MM[first, second] -= 1
        weight = weight_MM[first, second]
        for row, column, sign in ((first, first, 1), (second, second, 1), (first, second, -1)):
            hessian_MM[row, column] += sign * weight
        hessian_MM[second, first] -= weight
    return picked


def _weight(beta_M: Floats) -> Floats:
    """Information of one contest about its pair's gap: p(1 - p)."""
    p_MM = 1.0 / (1.0 + np.exp(beta_M[None, :] - beta_M[:, None]))
    return p_MM * (1.0 - p_MM)


def _hessian(games_MM: Floats, beta_M: Floats) -> Floats:
    curvature_MM = games_MM * _weight(beta_M)
    return np.diag(curvature_MM.sum(1)) - curvature_MM


def _gap_variance(hessian_MM: Floats) -> Floats:
    """Variance of every two strengths' gap; 1 on the diagonal, which has none."""
    covariance_MM = np.linalg.pinv(hessian_MM, hermitian=True)
    own_M = np.diag(covariance_MM)
    variance_MM = own_M[:, None] + own_M[None, :] - 2.0 * covariance_MM
    np.fill_diagonal(variance_MM, 1.0)
    return np.maximum(variance_MM, 1e-12)


def _erf(values: Floats) -> Floats:
    """Abramowitz and Stegun 7.1.26, to 1.5e-7; numpy has none, and values are not negative."""
    t = 1.0 / (1.0 + 0.3275911 * values)
    series = np.polyval(_ERF, t) * t
    return 1.0 - series * np.exp(-(values**2))
