"""Cross entropy of the supervised tokens, without ever holding all logits.

Positions without loss are dropped before the output layer; the rest goes through it in chunks. The
gradient of each chunk is computed while its logits are alive, so nothing is recomputed and only one
chunk of logits exists at a time (the idea of Liger's and torchtune's fused linear cross entropy, in
plain torch).

Legend: N supervised positions, E hidden size, V vocabulary, C positions of a chunk.
"""

import torch
from torch.nn import functional

IGNORE = -100
CHUNK_POSITIONS = 1024
_BLOCK_ELEMENTS = 1 << 18
"""of the logits in fp32, 1 MiB: what a core's cache holds"""


def supervised_loss(
    hidden: torch.Tensor,
    weight_VE: torch.Tensor,
    labels: torch.Tensor,
    scale: float,
    softcap: float | None = None,
) -> torch.Tensor:
    """Sum of the cross entropies times `scale`, fp32 scalar.

    `hidden` (..., E) and `labels` (...) are aligned: labels holds the next token of each position,
    or IGNORE. `scale` is one over the supervised tokens of the whole global batch.
    `softcap` c bounds the logits to c tanh(x / c), as Gemma 2 does (arXiv:2408.00118, section 2).
    """
    flat = labels.reshape(-1)
    keep = (flat != IGNORE).nonzero().squeeze(1)
    hidden_NE = hidden.reshape(-1, hidden.shape[-1]).index_select(0, keep)
    return _ChunkedCrossEntropy.apply(hidden_NE, weight_VE, flat[keep], scale, softcap)


def next_token_labels(ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Labels shifted by one: position t holds token t+1 where that token carries loss.

    The first token of a conversation never carries loss, so nothing crosses a boundary.
    """
    labels = torch.full_like(ids_BT, IGNORE)
    labels[:, :-1] = torch.where(mask_BT[:, 1:], ids_BT[:, 1:], IGNORE)
    return labels


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_NE, weight_VE, labels_N, scale, softcap):
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden_NE.device)
        grad_hidden = torch.empty_like(hidden_NE) if wants_hidden else None
        grad_weight = torch.zeros_like(weight_VE, dtype=torch.float32) if wants_weight else None
        for start in range(0, len(labels_N), CHUNK_POSITIONS):
            stop = start + CHUNK_POSITIONS
            hidden_CE, labels_C = hidden_NE[start:stop], labels_N[start:stop]
            logits_CV = functional.linear(hidden_CE, weight_VE)
            losses_C, grad_CV = _losses_and_slopes(
                logits_CV, labels_C, scale, softcap, wants_slopes=wants_hidden or wants_weight
            )
            total += losses_C.sum()
            if grad_hidden is not None:
                grad_hidden[start:stop] = grad_CV @ weight_VE
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
        return grad_hidden, grad_weight, None, None, None


def _losses_and_slopes(
    logits_CV: torch.Tensor,
    labels_C: torch.Tensor,
    scale: float,
    softcap: float | None,
    *,
    wants_slopes: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross entropies (C,), fp32, and the slopes of their sum times `scale` by the logits.

    The slopes take the place of `logits_CV`. A CPU goes through it in blocks that its cache holds.
    """
    losses_C = torch.empty(len(labels_C), dtype=torch.float32, device=logits_CV.device)
    rows = (
        _BLOCK_ELEMENTS // logits_CV.shape[1] if logits_CV.device.type == "cpu" else len(labels_C)
    )
    for losses_B, logits_BV, labels_B in zip(
        *(part.split(max(1, rows)) for part in (losses_C, logits_CV, labels_C)), strict=True
    ):
        wide_BV = logits_BV.float()
        slope_BV = None
        if softcap is not None:
            wide_BV = torch.tanh(wide_BV / softcap)
            slope_BV = 1 - wide_BV.square()
            wide_BV = wide_BV.mul_(softcap)
        log_normalizer_B = wide_BV.logsumexp(-1)
        at_labels = torch.arange(len(labels_B), device=labels_B.device), labels_B
        torch.sub(log_normalizer_B, wide_BV[at_labels], out=losses_B)
        if not wants_slopes:
            continue
        wide_BV = wide_BV.sub_(log_normalizer_B[:, None]).exp_()
        wide_BV[at_labels] -= 1.0
        if slope_BV is not None:
            wide_BV = wide_BV.mul_(slope_BV)
        logits_BV.copy_(wide_BV.mul_(scale))
    return losses_C, logits_CV
