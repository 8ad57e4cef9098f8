"""One token from a row of logits and a uniform number."""

import numpy as np

from apps.serve.engine.cpu.intrinsics import compiled
from apps.serve.engine.cpu.kernels import exp
from apps.serve.engine.protocol import SamplingParams

_f32 = np.float32


def draw(logits_V: np.ndarray, params: SamplingParams, u: float) -> int:
    """Index of the drawn token, by the inverse of the cumulative distribution at u in [0, 1).

    In the order of vLLM: top-k, then top-p of what it leaves, then min-p.
    """
    p_V = _weights(logits_V, params.temperature)
    if params.top_k == 0 and params.top_p == 1.0 and params.min_p == 0.0:
        return _invert(p_V, u)
    ids = _candidates(p_V, params)
    p = p_V[ids]
    # Of top-k's remainder where there is one, else of the whole vocabulary.
    total = (p if params.top_k else p_V).sum(dtype=np.float64)
    before = np.cumsum(p, dtype=np.float64) - p
    keep = (before < params.top_p * total) & (p >= params.min_p * p[0])
    keep[0] = True
    return int(ids[_invert(np.where(keep, p, _f32(0)), u)])


def _candidates(p_V: np.ndarray, params: SamplingParams) -> np.ndarray:
    """Tokens that may survive the filters, likeliest first, without sorting the vocabulary."""
    k = min(params.top_k, len(p_V))
    if k:
        least = np.partition(p_V, -k)[-k]
    else:
        # Tokens below this share of the average weight sum to less than what top-p drops.
        least = min(1.0, max(params.min_p, (1.0 - params.top_p) * p_V.mean(dtype=np.float64)))
    ids = np.flatnonzero(p_V >= least)
    ids = ids[np.argsort(-p_V[ids], kind="stable")]
    return ids[:k] if k else ids


@compiled
def _weights(logits_V, temperature):
    """Probabilities but for a factor: the likeliest token weighs 1."""
    highest = logits_V[0]
    for logit in logits_V:
        highest = max(highest, logit)
    # Below 1e-5 the division overflows to a distribution that is greedy anyway.
    scale = _f32(1) / max(_f32(temperature), _f32(1e-5))
    p_V = np.empty_like(logits_V)
    for i in range(len(logits_V)):
        x = (logits_V[i] - highest) * scale
        p_V[i] = exp(x) if x > _f32(-87) else _f32(0)
    return p_V


@compiled
def _invert(p, u):
    """The index at which the running sum passes u of the total; never one of weight zero."""
    total = 0.0
    for weight in p:
        total += weight
    passed, last = 0.0, 0
    for i in range(len(p)):
        if p[i] > 0:
            passed += p[i]
            last = i
            if passed > u * total:
                break
    return last
