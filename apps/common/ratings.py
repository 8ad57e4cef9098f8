"""Ratings from pairwise comparisons: Bradley-Terry, Elo, and intervals that respect clusters.

The evaluation report and the public leaderboard share this file, so a vote and a judgment are
rated by one arithmetic. A tie is half a win for each side everywhere.

Legend: M models, N battles, Q clusters (questions, or voters), B bootstrap resamples.

Sources: Bradley and Terry, Biometrika 39 (1952). The sandwich covariance is White (1982) with
clusters as in Liang and Zeger (1986). The online update is Elo's with base 10 and scale 400.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

# numpy's reductions are typed as unknown for broadcast shapes:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import numpy as np
import numpy.typing as npt

from apps.common.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCALE = 400.0
CENTER = 1000.0
ELO_PER_LOG_ODDS = SCALE / float(np.log(10.0))
# Half a cluster's worth of wins and of losses a pair: Jeffreys's prior where there are two models.
PSEUDO_SHAPE = 0.25
# Keeps a resample finite whose pseudo-wins are all but zero.
LEAST_PSEUDO_WINS = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Battles:
    """N comparisons; `outcome` is the share of the win that `first` takes: 1, 0.5 or 0."""

    models: tuple[str, ...]
    first_N: Ints
    second_N: Ints
    outcome_N: Floats
    cluster_N: Ints
    """Battles of one cluster (a question in both orders, say) are not independent."""

    @classmethod
    def of(cls, records: Iterable[tuple[str, str, float, Hashable]]) -> "Battles":
        """Builds from (first, second, outcome, cluster); names are numbered in sorted order."""
        rows = list(records)
        models = tuple(sorted({row[0] for row in rows} | {row[1] for row in rows}))
        index = {name: i for i, name in enumerate(models)}
        clusters: dict[Hashable, int] = {}
        for row in rows:
            clusters.setdefault(row[3], len(clusters))
        outcome_N = np.array([row[2] for row in rows], np.float64)
        if outcome_N.size and (outcome_N.min() < 0 or outcome_N.max() > 1):
            raise InputError(
                f"a battle's outcome must lie in 0..1 (1 first wins, 0.5 tie, 0 second wins), "
                f"got {outcome_N.min():g}..{outcome_N.max():g}"
            )
        return cls(
            models=models,
            first_N=np.array([index[row[0]] for row in rows], np.int64),
            second_N=np.array([index[row[1]] for row in rows], np.int64),
            outcome_N=outcome_N,
            cluster_N=np.array([clusters[row[3]] for row in rows], np.int64),
        )

    @property
    def num_clusters(self) -> int:
        return int(self.cluster_N.max()) + 1 if self.cluster_N.size else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """One line of a leaderboard, on the Elo scale."""

    model: str
    rating: float
    low: float
    high: float
    num_battles: int
    win_rate: float
    rank: int
    """1 + the number of models whose interval lies wholly above this one's."""


def win_matrix(battles: Battles, weight_N: Floats | None = None) -> Floats:
    """wins_MM[i, j] is how often i beat j, ties counted half; `weight_N` reweights battles."""
    size = len(battles.models)
    weight = np.ones_like(battles.outcome_N) if weight_N is None else weight_N
    cells = battles.first_N * size + battles.second_N
    mirrored = battles.second_N * size + battles.first_N
    flat = np.bincount(cells, weight * battles.outcome_N, minlength=size * size)
    flat += np.bincount(mirrored, weight * (1.0 - battles.outcome_N), minlength=size * size)
    wins_MM = flat.astype(np.float64).reshape(size, size)
    np.fill_diagonal(wins_MM, 0.0)
    return wins_MM


def is_connected(wins_MM: Floats) -> bool:
    """True if every model is reachable from every other by wins: the estimate is then finite."""
    reach = (wins_MM > 0) | np.eye(len(wins_MM), dtype=bool)
    for _ in range(max(1, int(np.ceil(np.log2(max(2, len(wins_MM))))))):
        reach = (reach.astype(np.float64) @ reach.astype(np.float64)) > 0
    return bool(reach.all())


def bradley_terry(wins_MM: Floats, prior_ties: float = 0.0) -> Floats:
    """Maximum-likelihood strengths (log-odds, mean zero) of an M x M win matrix.

    `prior_ties` adds that many virtual ties between every two models, which keeps the estimate
    finite when a model never wins or never loses. Raises InputError when the data cannot order
    all models and no prior was given.
    """
    if prior_ties <= 0 and not is_connected(wins_MM):
        raise InputError(
            "the battles do not connect all models by wins in both directions, so their ratings "
            "are not finite; expected every model to win and lose at least once; pass prior_ties"
        )
    return _newton(wins_MM[None], prior_ties)[0]


def _newton(wins_BMM: Floats, prior_ties: float, tolerance: float = 1e-10) -> Floats:
    """Damped Newton on the aggregated likelihood, for all resamples at once."""
    num_models = wins_BMM.shape[1]
    off_diagonal = 1.0 - np.eye(num_models)
    wins_BMM = wins_BMM + 0.5 * prior_ties * off_diagonal
    games_BMM = wins_BMM + wins_BMM.transpose(0, 2, 1)
    won_BM = wins_BMM.sum(2)
    beta_BM = np.zeros(wins_BMM.shape[:2])
    # The likelihood is flat along the all-ones direction; this pins the mean at zero.
    pin = np.ones((num_models, num_models)) / num_models
    for _ in range(100):
        gap_BMM = beta_BM[:, :, None] - beta_BM[:, None, :]
        p_BMM = 1.0 / (1.0 + np.exp(-gap_BMM))
        gradient_BM = won_BM - (games_BMM * p_BMM).sum(2)
        curvature_BMM = games_BMM * p_BMM * (1.0 - p_BMM)
        hessian_BMM = -curvature_BMM
        diagonal = np.arange(num_models)
        hessian_BMM[:, diagonal, diagonal] += curvature_BMM.sum(2)
        scale_B = np.maximum(hessian_BMM[:, diagonal, diagonal].mean(1), 1e-12)
        step_BM = np.linalg.solve(
            hessian_BMM + scale_B[:, None, None] * pin, gradient_BM[:, :, None]
        )[:, :, 0]
        longest_B = np.abs(step_BM).max(1)
        beta_BM += step_BM / np.maximum(1.0, longest_B / 2.0)[:, None]
        beta_BM -= beta_BM.mean(1, keepdims=True)
        if longest_B.max() < tolerance:
            break
    return beta_BM


def sandwich_covariance(battles: Battles, beta_M: Floats, prior_ties: float = 0.0) -> Floats:
    """M x M covariance of the strengths, robust to dependence within clusters."""
    size = len(battles.models)
    wins_MM = win_matrix(battles) + 0.5 * prior_ties * (1.0 - np.eye(size))
    games_MM = wins_MM + wins_MM.T
    p_MM = 1.0 / (1.0 + np.exp(beta_M[None, :] - beta_M[:, None]))
    curvature_MM = games_MM * p_MM * (1.0 - p_MM)
    hessian_MM = np.diag(curvature_MM.sum(1)) - curvature_MM
    bread_MM = np.linalg.pinv(hessian_MM, hermitian=True)
    residual_N = battles.outcome_N - p_MM[battles.first_N, battles.second_N]
    score_QM = np.zeros((battles.num_clusters, size))
    np.add.at(score_QM, (battles.cluster_N, battles.first_N), residual_N)
    np.add.at(score_QM, (battles.cluster_N, battles.second_N), -residual_N)
    return bread_MM @ (score_QM.T @ score_QM) @ bread_MM


def bootstrap(battles: Battles, num_resamples: int = 200, seed: int = 0) -> Floats:
    """Strengths under `num_resamples` random weightings of whole clusters, as beta_BM.

    The Bayesian bootstrap (Rubin 1981): every cluster weighs a standard exponential. A model that
    won all it played would then win all in every resample, and one question would leave nothing to
    vary. So each model also wins and loses a random part of one cluster, against all others alike.

    Two models met on n questions, of which the first won k. Pseudo-wins are the sum of two
    Gamma(1/4), so its share is Beta(k + 1/2, n - k + 1/2), Jeffreys's posterior.
    """
    size = len(battles.models)
    rng = np.random.default_rng(seed)
    cell_E, cluster_E, wins_E = _entries(battles)
    wins_BMM = np.empty((num_resamples, size, size))
    for b in range(num_resamples):
        weight_Q = rng.standard_exponential(battles.num_clusters)
        flat = np.bincount(cell_E, wins_E * weight_Q[cluster_E], minlength=size * size)
        wins_BMM[b] = flat.reshape(size, size)
    wins_BMM += _pseudo_wins(battles, num_resamples, rng)
    return _newton(wins_BMM, 0.0, tolerance=1e-6)


def _entries(battles: Battles) -> tuple[Ints, Ints, Floats]:
    """Cell of the win matrix, cluster and wins of everything won; a tie makes two entries."""
    size = len(battles.models)
    cells = battles.first_N * size + battles.second_N
    mirrored = battles.second_N * size + battles.first_N
    wins_E = np.concatenate([battles.outcome_N, 1.0 - battles.outcome_N])
    is_won = wins_E > 0
    cell_E = np.concatenate([cells, mirrored])
    cluster_E = np.concatenate([battles.cluster_N, battles.cluster_N])
    return cell_E[is_won], cluster_E[is_won], wins_E[is_won]


def _pseudo_wins(battles: Battles, num_resamples: int, rng: np.random.Generator) -> Floats:
    """What every model wins and loses beside its battles, as wins_BMM."""
    size = len(battles.models)
    taken_part = np.unique(
        np.concatenate([battles.first_N, battles.second_N]) * battles.num_clusters
        + np.concatenate([battles.cluster_N, battles.cluster_N])
    )
    battles_per_cluster = 2.0 * len(battles.outcome_N) / len(taken_part)
    share = battles_per_cluster / max(1, size - 1)
    won_BM, lost_BM = share * rng.standard_gamma(PSEUDO_SHAPE, (2, num_resamples, size))
    wins_BMM = won_BM[:, :, None] + lost_BM[:, None, :] + LEAST_PSEUDO_WINS * share
    wins_BMM[:, np.arange(size), np.arange(size)] = 0.0
    return wins_BMM


def to_elo(beta: Floats, center: float = CENTER) -> Floats:
    """Log-odds to the Elo scale: 400 points are ten to one; the mean is `center`."""
    return center + ELO_PER_LOG_ODDS * beta


def elo(battles: Battles, k: float = 4.0, initial: float = CENTER) -> Floats:
    """Online Elo in the order of the battles; kept beside Bradley-Terry because people know it."""
    rating = [initial] * len(battles.models)
    rows = zip(
        battles.first_N.tolist(),
        battles.second_N.tolist(),
        battles.outcome_N.tolist(),
        strict=True,
    )
    for first, second, outcome in rows:
        expected = 1.0 / (1.0 + 10.0 ** ((rating[second] - rating[first]) / SCALE))
        change = k * (outcome - expected)
        rating[first] += change
        rating[second] -= change
    return np.array(rating)


def leaderboard(
    battles: Battles, num_resamples: int = 500, seed: int = 0, confidence: float = 0.95
) -> list[Rating]:
    """Bradley-Terry ratings with cluster-bootstrap intervals, best first; [] without battles.

    The intervals hold with one question and for a model that never lost: see `bootstrap`.
    """
    if not battles.outcome_N.size:
        return []
    wins_MM = win_matrix(battles)
    prior_ties = 0.0 if is_connected(wins_MM) else 1.0
    beta_M = bradley_terry(wins_MM, prior_ties)
    resampled_BM = bootstrap(battles, num_resamples, seed)
    tail = (1.0 - confidence) / 2
    # Weibull quantiles: few resamples then cover as often as many.
    edges = [tail, 1.0 - tail]
    low_M, high_M = np.quantile(resampled_BM, edges, axis=0, method="weibull")
    low_M, high_M = np.minimum(low_M, beta_M), np.maximum(high_M, beta_M)
    games_M = wins_MM.sum(1) + wins_MM.sum(0)
    rows = [
        Rating(
            model=name,
            rating=float(to_elo(beta_M[i : i + 1])[0]),
            low=float(to_elo(low_M[i : i + 1])[0]),
            high=float(to_elo(high_M[i : i + 1])[0]),
            num_battles=round(float(games_M[i])),
            win_rate=float(wins_MM[i].sum() / games_M[i]) if games_M[i] else 0.5,
            rank=1 + int((low_M > high_M[i]).sum()),
        )
        for i, name in enumerate(battles.models)
    ]
    return sorted(rows, key=lambda row: -row.rating)
