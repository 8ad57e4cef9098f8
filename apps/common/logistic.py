"""Logistic regression with a ridge: what models and styles add to the log-odds of a win.

The report's style control and the leaderboard's share it. The ridge keeps finite a model that never
lost, and gives strengths the mean zero that the likelihood leaves open.

Legend: N battles, F terms, Q clusters (questions, or voters).
"""

from collections.abc import Hashable, Sequence

# numpy's reductions are typed as unknown for broadcast shapes:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import numpy as np

from apps.common.ratings import Floats

_MOST_STEPS, _TOLERANCE = 50, 1e-10


def fit(
    design_NF: Floats, outcome_N: Floats, ridge: float, weight_N: Floats | None = None
) -> Floats:
    """Coefficients by Newton's method on the penalised likelihood.

    Args:
        outcome_N: shares of a win, 0 to 1
        ridge: half of it times the squared coefficients is the penalty
        weight_N: what each battle counts; None: 1
    """
    weight = np.ones(len(outcome_N)) if weight_N is None else weight_N
    beta_F = np.zeros(design_NF.shape[1])
    for _ in range(_MOST_STEPS):
        share_N = _shares(design_NF, beta_F)
        gradient_F = design_NF.T @ (weight * (outcome_N - share_N)) - ridge * beta_F
        step_F = np.linalg.solve(_information(design_NF, share_N, ridge, weight), gradient_F)
        beta_F += step_F
        if np.abs(step_F).max() < _TOLERANCE:
            break
    return beta_F


def covariance(
    design_NF: Floats,
    outcome_N: Floats,
    beta_F: Floats,
    ridge: float,
    clusters: Sequence[Hashable],
    ends_N: Floats | None = None,
) -> Floats:
    """F x F, of coefficients that `fit` gave; robust to dependence within clusters (White 1982).

    `ends_N` is what share of a battle more, lost and won, each may stand for, so that outcomes
    that are all alike claim no certainty.
    """
    share_N = _shares(design_NF, beta_F)
    bread_FF = np.linalg.inv(_information(design_NF, share_N, ridge, np.ones(len(outcome_N))))
    number = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    score_QF = np.zeros((len(number), design_NF.shape[1]))
    rows = np.array([number[name] for name in clusters])
    np.add.at(score_QF, rows, design_NF * (outcome_N - share_N)[:, None])
    spread = len(number) / max(1, len(number) - 1)
    meat_FF = spread * score_QF.T @ score_QF
    if ends_N is not None:
        meat_FF += (design_NF.T * (ends_N * (share_N**2 + (1.0 - share_N) ** 2))) @ design_NF
    return bread_FF @ meat_FF @ bread_FF


def _shares(design_NF: Floats, beta_F: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-design_NF @ beta_F))


def _information(design_NF: Floats, share_N: Floats, ridge: float, weight_N: Floats) -> Floats:
    hessian_FF = (design_NF.T * (weight_N * share_N * (1.0 - share_N))) @ design_NF
    return hessian_FF + ridge * np.eye(design_NF.shape[1])
