"""The next token of each row, from float32 logits.

The order follows vLLM: logit bias, grammar, penalties, min_tokens; then temperature, top-k, top-p
and min-p. Log-probabilities are of the model's own distribution, before all of these.

One uniform number per token, a function of (seed, index of the generated token) alone, goes through
the inverse of the cumulative distribution. So a sampled answer depends on its request only: not on
the batch, and not on where it runs.
"""

import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Tensor

from apps.common.errors import CriaError
from apps.serve.engine.protocol import Request, SamplingParams, TokenLogprob, TokenMask

_NOT_A_NUMBER = "no token has a finite logit; the model's weights or the grammar are damaged"
NUM_CANDIDATES = 1024
"""Top-p and min-p look at this many tokens first; the whole vocabulary is sorted only if needed."""


@dataclass(slots=True)
class SamplerState:
    """What sampling needs to know of one request."""

    params: SamplingParams
    stop_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    mask: TokenMask | None
    num_generated: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    """Generated tokens; kept only when a penalty reads them."""
    is_plain_greedy: bool = False
    error: str = ""
    """Why no token can be chosen any more."""

    @classmethod
    def of(
        cls, request: Request, eos_ids: tuple[int, ...], mask: TokenMask | None
    ) -> "SamplerState":
        params = request.params
        ends = mask is not None or not params.ignore_eos  # a finished grammar allows nothing else
        stop_ids = params.stop_token_ids + (eos_ids if ends else ())
        state = cls(params, stop_ids, request.prompt_ids, mask)
        state.is_plain_greedy = params.temperature == 0 and params.logprobs is None
        state.is_plain_greedy &= not (state.edits_logits or params.min_tokens)
        for token_id in request.generated_ids:
            state.accept(token_id)
        return state

    @property
    def edits_logits(self) -> bool:
        return self.has_penalty or self.mask is not None or bool(self.params.logit_bias)

    @property
    def has_penalty(self) -> bool:
        p = self.params
        return bool(p.presence_penalty or p.frequency_penalty) or p.repetition_penalty != 1.0

    def accept(self, token_id: int) -> None:
        self.num_generated += 1
        if self.has_penalty:
            self.counts[token_id] += 1
        if self.mask is not None and token_id not in self.stop_ids:
            self.mask.accept(token_id)


def uniform(seed: int, position: int) -> float:
    """In [0, 1), a pure function of its arguments on every machine."""
    digest = blake2b(struct.pack("<qq", seed, position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


@torch.inference_mode()
def sample(
    logits_NV: Tensor, states: list[SamplerState]
) -> tuple[list[int], list[TokenLogprob | None]]:
    """Token ids, -1 where none can be chosen (see the state's `error`), and log-probabilities."""
    logprobs: list[TokenLogprob | None] = [None] * len(states)
    raw_rows = [i for i, state in enumerate(states) if state.params.logprobs is not None]
    raw = logits_NV[raw_rows].log_softmax(-1) if raw_rows else None
    for i, state in enumerate(states):
        if not state.is_plain_greedy:
            try:
                _edit(logits_NV[i], state)
            except CriaError as grammar_error:
                state.error = str(grammar_error)
    best, arg = logits_NV.max(dim=-1)
    tokens = arg.tolist()
    for i, value in enumerate(best.tolist()):
        if not math.isfinite(value):
            states[i].error = states[i].error or _NOT_A_NUMBER
        if states[i].error:
            tokens[i] = -1
        elif states[i].params.temperature > 0:
            tokens[i] = _sample_row(logits_NV[i], states[i])
    for row, i in enumerate(raw_rows):
        if tokens[i] >= 0:
            logprobs[i] = _logprob(raw[row], tokens[i], states[i].params.logprobs)
    return tokens, logprobs


def _edit(logits_V: Tensor, state: SamplerState) -> None:
    params = state.params
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits_V.device)
        logits_V[ids] += torch.tensor(list(params.logit_bias.values()), device=logits_V.device)
    if state.has_penalty:
        _penalize(logits_V, state)
    if state.mask is not None:
        logits_V.masked_fill_(_forbidden(state.mask, len(logits_V)).to(logits_V.device), -torch.inf)
    if state.num_generated < params.min_tokens and state.stop_ids:
        logits_V[list(state.stop_ids)] = -torch.inf


def _penalize(logits_V: Tensor, state: SamplerState) -> None:
    params = state.params
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*state.prompt_ids, *state.counts}), device=logits_V.device)
        old = logits_V[seen]
        penalty = params.repetition_penalty
        logits_V[seen] = torch.where(old > 0, old / penalty, old * penalty)
    if state.counts and (params.presence_penalty or params.frequency_penalty):
        ids = torch.tensor(list(state.counts), device=logits_V.device)
        counts = torch.tensor(list(state.counts.values()), device=logits_V.device)
        logits_V[ids] -= params.presence_penalty + params.frequency_penalty * counts


def _forbidden(mask: TokenMask, vocab_size: int) -> Tensor:
    words = torch.frombuffer(bytearray(mask.bitmask()), dtype=torch.uint8)
    bits = (words[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    forbidden = torch.ones(vocab_size, dtype=torch.bool)
    allowed = bits.view(-1)[:vocab_size] == 1
    forbidden[: len(allowed)] = ~allowed
    return forbidden


def _sample_row(logits_V: Tensor, state: SamplerState) -> int:
    params = state.params
    u = uniform(params.seed, state.num_generated)
    # Below 1e-5 the division overflows to a distribution that is greedy anyway.
    scaled = logits_V / max(params.temperature, 1e-5)
    if params.top_k == 0 and params.top_p == 1.0 and params.min_p == 0.0:
        return _pick(scaled.softmax(-1), u)
    if 0 < params.top_k < len(scaled):
        values, ids = scaled.topk(params.top_k)
        p = values.softmax(-1)
    else:
        values, ids = scaled.topk(min(NUM_CANDIDATES, len(scaled)))
        p = (values - scaled.logsumexp(-1)).exp()
        if p.sum() < params.top_p and p[-1] >= params.min_p * p[0]:
            values, ids = scaled.sort(descending=True)
            p = values.softmax(-1)
    keep = (p.cumsum(-1) - p < params.top_p) & (p >= params.min_p * p[0])
    keep[0] = True
    return int(ids[_pick(torch.where(keep, p, 0.0), u)])


def _pick(p: Tensor, u: float) -> int:
    total = p.cumsum(-1, dtype=torch.float64)
    index = int(torch.searchsorted(total, u * float(total[-1]), right=True))
    # Rounding may carry u past the end or onto a token of probability zero.
    index = min(index, len(p) - 1)
    return index if p[index] > 0 else int(p.argmax())


def _logprob(logprobs_V: Tensor, token_id: int, num_top: int | None) -> TokenLogprob:
    values, ids = logprobs_V.topk(min(num_top or 0, len(logprobs_V)))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(float(logprobs_V[token_id]), top)
