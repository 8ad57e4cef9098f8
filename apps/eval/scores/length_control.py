"""Win rates with the length of the answers held equal; an option, with raw figures beside it.

A logistic regression of the outcome on both models' strengths and the standardised, saturated
difference of their answers' lengths, as in length-controlled AlpacaEval (arXiv:2404.04475) without
its per-question difficulties. It is fragile with few wins (measured: without its shared priors the
published method moves a 2.6 % model to 19.8 %), so a ridge pulls all terms to zero and a small
sample is said to be one.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from apps.eval.records.answer import Answer
from apps.eval.scores.figures import ControlledPair, LengthControl
from apps.eval.scores.judgments import Contest
from apps.eval.scores.statistics import Floats

RIDGE = 1.0
FEW_DECISIONS = 10


def controlled(
    held: Sequence[Contest], answers: Mapping[str, Mapping[str, Answer]]
) -> LengthControl | None:
    """None without decided contests."""
    known = [contest for contest in held if contest.outcome is not None]
    if not known:
        return None
    names = sorted({name for contest in known for name in contest.models})
    gap_N = np.array([_gap_chars(contest, answers) for contest in known], np.float64)
    spread = float(gap_N.std()) or 1.0
    design_NF = np.zeros((len(known), len(names) + 1))
    for row, contest in enumerate(known):
        design_NF[row, names.index(contest.models[0])] = 1.0
        design_NF[row, names.index(contest.models[1])] = -1.0
    design_NF[:, -1] = np.tanh(gap_N / spread)
    outcome_N = np.array([contest.outcome for contest in known], np.float64)
    weights_F = _ridge_logistic(design_NF, outcome_N)
    pairs: list[ControlledPair] = []
    for models in dict.fromkeys(contest.models for contest in known):
        raw = [c.outcome for c in known if c.models == models and c.outcome is not None]
        gap = weights_F[names.index(models[0])] - weights_F[names.index(models[1])]
        decisions = sum(outcome != 0.5 for outcome in raw)
        pairs.append(
            ControlledPair(
                models=models,
                raw=float(np.mean(raw)),
                controlled=float(1.0 / (1.0 + np.exp(-gap))),
                n=len(raw),
                is_fragile=min(decisions, sum(o == 1 for o in raw), sum(o == 0 for o in raw))
                < FEW_DECISIONS,
            )
        )
    return LengthControl(
        pairs=tuple(pairs), length_effect_log_odds=float(weights_F[-1]), n=len(known)
    )


def _gap_chars(contest: Contest, answers: Mapping[str, Mapping[str, Answer]]) -> int:
    first, second = (answers[name][contest.question_id].num_chars for name in contest.models)
    return first - second


def _ridge_logistic(design_NF: Floats, outcome_N: Floats) -> Floats:
    """Newton's method on the penalised likelihood; converges in a few steps."""
    weights_F = np.zeros(design_NF.shape[1])
    for _ in range(50):
        p_N = 1.0 / (1.0 + np.exp(-design_NF @ weights_F))
        gradient_F = design_NF.T @ (outcome_N - p_N) - RIDGE * weights_F
        hessian_FF = (design_NF.T * (p_N * (1.0 - p_N))) @ design_NF
        step_F = np.linalg.solve(hessian_FF + RIDGE * np.eye(len(weights_F)), gradient_F)
        weights_F += step_F
        if np.abs(step_F).max() < 1e-10:
            break
    return weights_F
