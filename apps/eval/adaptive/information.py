"""Which contests to judge next, so that few of them settle the order of the models.

Two models whose order is open and whose gap is little known have most to tell each other. After
every round the strengths are fitted anew (Bradley-Terry), and the next contests go where they are
expected to decide most. That is the chance that the order of a pair is wrong, times the share of
its gap's variance that one more contest takes away. Of two that never meet, as where all play one
baseline, the contests of either count, by the share that they take away. The order is settled when
every two neighbours in it are in their right order with the asked confidence, or have no contest
left.

Half of a round-robin's contests give its order where strengths spread as on a public leaderboard.
In close ones they cannot, even dealt out by one who knows the strengths (benchmarks/adaptive.py).

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
LEAST_PRIOR_TIES = 0.5
"""Between every two models, in large leagues."""
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


def prior_ties(num_models: int) -> float:
    """Virtual ties between every two models, a prior on their strengths.

    It is about a normal one that spreads by 1 in log-odds. A weak one claims too much, for the
    order is looked at after every round and one look in many errs. Of 100 neighbours settled at
    95 % among five close models (spread .5) half a tie left 10 wrong, and one tie none.
    """
    return max(LEAST_PRIOR_TIES, 4.0 / max(1, num_models - 1))


def fit(wins_MM: Floats) -> Standings:
    """`wins_MM[i, j]`: how often i beat j, ties counted half."""
    beta_M = bradley_terry(wins_MM, prior_ties(len(wins_MM)))
    games_MM = _with_prior(wins_MM + wins_MM.T)
    covariance_MM = _covariance(_hessian(games_MM, beta_M))
    return Standings(beta_M=beta_M, variance_MM=_variance_of_gaps(covariance_MM))


def is_settled(standings: Standings, games_MM: Floats, left_MM: Floats, confidence: float) -> bool:
    """Whether every two neighbours of which more can be learned are in order."""
    return all(
        standings.doubt(first, second) <= 1.0 - confidence
        for first, second in standings.neighbours()
        if left_MM[first, second] or _is_apart(first, second, games_MM, left_MM)
    )


def _is_apart(first: int, second: int, games_MM: Floats, left_MM: Floats) -> bool:
    """Whether two never meet, as where all play one baseline, and others can still tell of them."""
    never_meet = not games_MM[first, second] and not left_MM[first, second]
    return never_meet and bool(left_MM[[first, second]].any())


def next_contests(
    standings: Standings, games_MM: Floats, left_MM: Floats, count: int
) -> list[tuple[int, int]]:
    """Up to `count` pairs to judge next, with repetition; `left_MM` says how many each has left.

    Each pick counts as if it were judged, so that a round spreads over the open places.
    """
    beta_M = standings.beta_M
    hessian_MM = _hessian(_with_prior(games_MM), beta_M)
    gap_MM = np.abs(beta_M[:, None] - beta_M[None, :])
    weight_MM = _weight(beta_M)
    apart = [pair for pair in standings.neighbours() if _is_apart(*pair, games_MM, left_MM)]
    left_MM = np.triu(left_MM, 1).astype(np.float64)
    picked: list[tuple[int, int]] = []
    while len(picked) < count and left_MM.any():
        covariance_MM = _covariance(hessian_MM)
        variance_MM = _variance_of_gaps(covariance_MM)
        doubt_MM = 0.5 * (1.0 - _erf(gap_MM / np.sqrt(2.0 * variance_MM)))
        told_MM = weight_MM / (1.0 + weight_MM * variance_MM)
        value_MM = doubt_MM * told_MM * variance_MM
        for one, other in apart:
            effect_M = covariance_MM[one] - covariance_MM[other]
            effect_MM = effect_M[:, None] - effect_M[None, :]
            taken_MM = told_MM * effect_MM**2 / variance_MM[one, other]
            value_MM = np.maximum(value_MM, doubt_MM[one, other] * taken_MM)
        value_MM = np.where(left_MM > 0, value_MM, -1.0)
        first, second = divmod(int(value_MM.argmax()), len(beta_M))
        picked.append((first, second))
        left_MM[first, second] -= 1
        weight = weight_MM[first, second]
        for row, column, sign in ((first, first, 1), (second, second, 1), (first, second, -1)):
            hessian_MM[row, column] += sign * weight
        hessian_MM[second, first] -= weight
    return picked


def _with_prior(games_MM: Floats) -> Floats:
    size = len(games_MM)
    return games_MM + prior_ties(size) * (1.0 - np.eye(size))


def _weight(beta_M: Floats) -> Floats:
    """Information of one contest about its pair's gap: p(1 - p)."""
    p_MM = 1.0 / (1.0 + np.exp(beta_M[None, :] - beta_M[:, None]))
    return p_MM * (1.0 - p_MM)


def _hessian(games_MM: Floats, beta_M: Floats) -> Floats:
    curvature_MM = games_MM * _weight(beta_M)
    return np.diag(curvature_MM.sum(1)) - curvature_MM


def _covariance(hessian_MM: Floats) -> Floats:
    return np.asarray(np.linalg.pinv(hessian_MM, hermitian=True), np.float64)


def _variance_of_gaps(covariance_MM: Floats) -> Floats:
    """Of every two strengths; 1 on the diagonal, which has none."""
    own_M = np.diag(covariance_MM)
    variance_MM = own_M[:, None] + own_M[None, :] - 2.0 * covariance_MM
    np.fill_diagonal(variance_MM, 1.0)
    return np.maximum(variance_MM, 1e-12)


def _erf(values: Floats) -> Floats:
    """Abramowitz and Stegun 7.1.26, to 1.5e-7; numpy has none, and values are not negative."""
    t = 1.0 / (1.0 + 0.3275911 * values)
    series = np.polyval(_ERF, t) * t
    return 1.0 - series * np.exp(-(values**2))
