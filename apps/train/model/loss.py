"""Cross entropy of the supervised tokens, without ever holding all logits.

Positions without loss are dropped before the output layer; the rest goes through it in chunks. The
gradient of each chunk is computed while its logits are alive, so nothing is recomputed and only one
chunk of logits exists at a time (the idea of Liger's and torchtune's fused linear cross entropy, in
plain torch).

With the base's hidden states beside the model's, an answer that the base would have given nearly
word for word is not learned but kept. Where the base says the token itself, the loss is then
KL(base || model): a model distilled into its own later self (learning without forgetting,
arXiv:1606.09282).

    label              A    star   is    hot   <end>     Hold   both   keys   <end>
    base's likeliest   A    star   is    a     <end>     To     the    keys   on
    of the answer      four of five: kept                one of four: learned
    loss               KL   KL     KL    CE    KL        CE     CE     CE     CE

Legend: N supervised positions, E hidden size, V vocabulary, C positions of a chunk, B of a block in
it, K of them kept.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn import functional

IGNORE = -100
CHUNK_POSITIONS = 1024
_BLOCK_ELEMENTS = 1 << 18
"""of the logits in fp32, 1 MiB: what a core's cache holds"""
SAID_SHARE = 0.65
"""of an answer's tokens must be the base's likeliest ones for it to count as the base's. In the
demo's chats 98 % of the answers that the base gave have that, and 6 % of the others."""


class BaseHidden(NamedTuple):
    """What the loss needs of the base beside the model."""

    hidden: torch.Tensor
    """its last hidden states, aligned with the model's (..., E)"""
    weight: float
    """of KL(base || model) where a token is kept, against 1 for the cross entropy elsewhere"""


def supervised_loss(
    hidden: torch.Tensor,
    weight_VE: torch.Tensor,
    labels: torch.Tensor,
    scale: float,
    softcap: float | None = None,
    base: BaseHidden | None = None,
) -> torch.Tensor:
    """Sum of the cross entropies (with `base`: or of what keeps it) times `scale`, fp32 scalar.

    `hidden` (..., E) and `labels` (...) are aligned: labels holds the next token of each position,
    or IGNORE. `scale` is one over the supervised tokens of the whole global batch.
    `softcap` c bounds the logits to c tanh(x / c), as Gemma 2 does (arXiv:2408.00118, section 2).
    """
    flat = labels.reshape(-1)
    keep = (flat != IGNORE).nonzero().squeeze(1)
    hidden_NE = hidden.reshape(-1, hidden.shape[-1]).index_select(0, keep)
    beside = None
    if base is not None:
        base_NE = base.hidden.reshape(-1, hidden.shape[-1]).index_select(0, keep)
        beside = _Beside(base_NE, _answers(keep), base.weight)
    return _ChunkedCrossEntropy.apply(hidden_NE, weight_VE, flat[keep], scale, softcap, beside)


def next_token_labels(ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Labels shifted by one: position t holds token t+1 where that token carries loss.

    The first token of a conversation never carries loss, so nothing crosses a boundary.
    """
    labels = torch.full_like(ids_BT, IGNORE)
    labels[:, :-1] = torch.where(mask_BT[:, 1:], ids_BT[:, 1:], IGNORE)
    return labels


class _Beside(NamedTuple):
    """The base at the supervised positions."""

    hidden_NE: torch.Tensor
    answers_N: torch.Tensor
    weight: float


class _Said(NamedTuple):
    """What the base says where it is kept, the first K positions of a chunk in the order `by`."""

    by_C: torch.Tensor
    logits_KV: torch.Tensor
    weight: float


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_NE, weight_VE, labels_N, scale, softcap, beside):
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden_NE.device)
        grad_hidden = torch.empty_like(hidden_NE) if wants_hidden else None
        grad_weight = torch.zeros_like(weight_VE, dtype=torch.float32) if wants_weight else None
        for start, stop in _chunks(len(labels_N), beside):
            hidden_CE, labels_C = hidden_NE[start:stop], labels_N[start:stop]
            said = None if beside is None else _said(beside, start, stop, weight_VE, labels_C)
            if said is not None:
                hidden_CE, labels_C = hidden_CE[said.by_C], labels_C[said.by_C]
            logits_CV = functional.linear(hidden_CE, weight_VE)
            wants_slopes = wants_hidden or wants_weight
            losses_C, grad_CV = _losses_and_slopes(
                logits_CV, labels_C, scale, softcap, said, wants_slopes=wants_slopes
            )
            total += losses_C.sum()
            if grad_hidden is not None:
                grad_CE = grad_CV @ weight_VE
                grad_hidden[start:stop] = grad_CE if said is None else grad_CE[said.by_C.argsort()]
            if grad_weight is not None:
                grad_weight += grad_CV.T @ hidden_CE
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight_VE.dtype
        return total * scale

    @staticmethod
    def backward(ctx, grad_output):
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad_output.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad_output).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None


def _answers(places_N: torch.Tensor) -> torch.Tensor:
    """To which answer each position belongs: 0, 0, 1 for 4, 5, 9. No answer touches the next."""
    return torch.cat([places_N.new_zeros(1), (places_N.diff() > 1).cumsum(0)])[: len(places_N)]


def _chunks(num_places: int, beside: _Beside | None) -> Iterator[tuple[int, int]]:
    """Where chunks start and stop; beside a base, at the ends of answers where they fit."""
    start = 0
    while start < num_places:
        stop = min(start + CHUNK_POSITIONS, num_places)
        if beside is not None and stop < num_places:
            first, cut = beside.answers_N[[start, stop]].tolist()
            stop = stop if first == cut else int((beside.answers_N < cut).sum())
        yield start, stop
        start = stop


def _said(
    beside: _Beside, start: int, stop: int, weight_VE: torch.Tensor, labels_C: torch.Tensor
) -> _Said:
    """The base's logits where it says the label and most of its answer itself.

    In bf16 several tokens may be the likeliest.
    """
    logits_CV = functional.linear(beside.hidden_NE[start:stop], weight_VE)
    is_said_C = logits_CV.gather(1, labels_C[:, None]).squeeze(1) >= logits_CV.amax(-1)
    answers_C = beside.answers_N[start:stop] - beside.answers_N[start]
    counts = torch.zeros(2, int(answers_C[-1]) + 1, device=logits_CV.device)
    counts.index_add_(1, answers_C, torch.stack([is_said_C, torch.ones_like(is_said_C)]).float())
    said, length = counts
    is_kept_C = is_said_C & (said >= SAID_SHARE * length)[answers_C]
    by_C = (~is_kept_C).byte().argsort(stable=True)
    return _Said(by_C, logits_CV[by_C[: int(is_kept_C.sum())]], beside.weight)


def _losses_and_slopes(
    logits_CV: torch.Tensor,
    labels_C: torch.Tensor,
    scale: float,
    softcap: float | None,
    said: _Said | None,
    *,
    wants_slopes: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses (C,), fp32, and the slopes of their sum times `scale` by the logits.

    The slopes take the place of `logits_CV`. A CPU goes through it in blocks that its cache holds.
    """
    losses_C = torch.empty(len(labels_C), dtype=torch.float32, device=logits_CV.device)
    is_cpu = logits_CV.device.type == "cpu"
    rows = max(1, _BLOCK_ELEMENTS // logits_CV.shape[1]) if is_cpu else len(labels_C)
    num_kept = 0 if said is None else len(said.logits_KV)
    for start, stop in _blocks(len(labels_C), num_kept, rows):
        losses_B, logits_BV = losses_C[start:stop], logits_CV[start:stop]
        wide_BV = logits_BV.float()
        slope_BV = None
        if softcap is not None:
            wide_BV = torch.tanh(wide_BV / softcap)
            slope_BV = 1 - wide_BV.square()
            wide_BV = wide_BV.mul_(softcap)
        log_normalizer_B = wide_BV.logsumexp(-1)
        if said is not None and start < num_kept:
            wide_BV = wide_BV.sub_(log_normalizer_B[:, None])
            wide_BV = _keep(said.logits_KV[start:stop], wide_BV, softcap, said.weight, losses_B)
        else:
            at_labels = torch.arange(stop - start, device=labels_C.device), labels_C[start:stop]
            torch.sub(log_normalizer_B, wide_BV[at_labels], out=losses_B)
            if wants_slopes:
                wide_BV = wide_BV.sub_(log_normalizer_B[:, None]).exp_()
                wide_BV[at_labels] -= 1.0
        if not wants_slopes:
            continue
        if slope_BV is not None:
            wide_BV = wide_BV.mul_(slope_BV)
        logits_BV.copy_(wide_BV.mul_(scale))
    return losses_C, logits_CV


def _blocks(num_places: int, num_kept: int, rows: int) -> Iterator[tuple[int, int]]:
    """Where blocks start and stop; the first `num_kept` places share none with the others."""
    for first, last in ((0, num_kept), (num_kept, num_places)):
        for start in range(first, last, rows):
            yield start, min(start + rows, last)


def _keep(
    base_BV: torch.Tensor,
    log_model_BV: torch.Tensor,
    softcap: float | None,
    weight: float,
    losses_B: torch.Tensor,
) -> torch.Tensor:
    """`losses_B` become weight x KL(base || model), from the base's logits and the model's
    log-probabilities; returned are its slopes by the model's logits, in place of the latter."""
    base_BV = base_BV.float()
    if softcap is not None:
        base_BV = torch.tanh(base_BV / softcap) * softcap
    base_BV = base_BV.log_softmax(-1)
    each_BV = functional.kl_div(log_model_BV, base_BV, reduction="none", log_target=True)
    torch.mul(each_BV.sum(-1), weight, out=losses_B)
    return log_model_BV.exp_().sub_(base_BV.exp_()).mul_(weight)
