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

import numpy as np
from torch import Tensor

from apps.common.errors import CriaError
from apps.serve.engine.cpu.draw import draw
from apps.serve.engine.protocol import Request, SamplingParams, TokenLogprob, TokenMask

_NOT_A_NUMBER = "no token has a finite logit; the model's weights or the grammar are damaged"


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
    is_plain: bool = False
    """The logits are taken as they are."""
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
        state.is_plain = not (state.edits_logits or params.min_tokens)
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


def sample(
    logits_NV: Tensor, states: list[SamplerState]
) -> tuple[list[int], list[TokenLogprob | None]]:
    """Token ids, -1 where none can be chosen (see the state's `error`), and log-probabilities."""
    raw_rows = [i for i, state in enumerate(states) if state.params.logprobs is not None]
    raw = logits_NV[raw_rows].log_softmax(-1) if raw_rows else logits_NV[:0]
    rows = logits_NV.cpu().numpy()
    tokens = [_token(row, state) for row, state in zip(rows, states, strict=True)]
    logprobs: list[TokenLogprob | None] = [None] * len(states)
    for row, i in enumerate(raw_rows):
        if tokens[i] >= 0:
            logprobs[i] = _logprob(raw[row], tokens[i], states[i].params.logprobs)
    return tokens, logprobs


def _token(logits_V: np.ndarray, state: SamplerState) -> int:
    params = state.params
    if not state.is_plain:
        try:
            _edit(logits_V, state)
        except CriaError as grammar_error:
            state.error = str(grammar_error)
    best = int(logits_V.argmax())
    if not math.isfinite(logits_V[best]):
        state.error = state.error or _NOT_A_NUMBER
    if state.error:
        return -1
    if params.temperature == 0:
        return best
    u = uniform(params.seed, state.num_generated)
    return draw(logits_V, params, u)


def _edit(logits_V: np.ndarray, state: SamplerState) -> None:
    params = state.params
    if params.logit_bias:
        logits_V[list(params.logit_bias)] += np.array(list(params.logit_bias.values()), np.float32)
    if state.has_penalty:
        _penalize(logits_V, state)
    if state.mask is not None:
        logits_V[_forbidden(state.mask, len(logits_V))] = -np.inf
    if state.num_generated < params.min_tokens and state.stop_ids:
        ends = list(state.stop_ids)
        before = logits_V[ends]
        logits_V[ends] = -np.inf
        if state.mask is not None and not np.isfinite(logits_V).any():
            logits_V[ends] = before  # the grammar is at its end, whatever was asked for


def _penalize(logits_V: np.ndarray, state: SamplerState) -> None:
    params = state.params
    if params.repetition_penalty != 1.0:
        seen = sorted({*state.prompt_ids, *state.counts})
        old, penalty = logits_V[seen], np.float32(params.repetition_penalty)
        logits_V[seen] = np.where(old > 0, old / penalty, old * penalty)
    if state.counts and (params.presence_penalty or params.frequency_penalty):
        counts = np.array(list(state.counts.values()), np.float32)
        logits_V[list(state.counts)] -= params.presence_penalty + params.frequency_penalty * counts


def _forbidden(mask: TokenMask, vocab_size: int) -> np.ndarray:
    bits = np.frombuffer(mask.bitmask(), dtype=np.uint8)
    allowed = np.unpackbits(bits, bitorder="little", count=min(8 * len(bits), vocab_size))
    forbidden = np.ones(vocab_size, dtype=bool)
    forbidden[: len(allowed)] = allowed == 0
    return forbidden


def logprobs_of(logits_V: Tensor, token_id: int, params: SamplingParams) -> list[TokenLogprob]:
    """The log-probability of a token that was given, if it is asked for."""
    if params.logprobs is None:
        return []
    return [_logprob(logits_V.log_softmax(-1), token_id, params.logprobs)]


def _logprob(logprobs_V: Tensor, token_id: int, num_top: int | None) -> TokenLogprob:
    values, ids = logprobs_V.topk(min(num_top or 0, len(logprobs_V)))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(float(logprobs_V[token_id]), top)
