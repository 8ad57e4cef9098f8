"""The GPU's way through attention, seen on a CPU: torch's varlen operator gets a CPU kernel.

The kernel keeps the operator's contract in plain torch, one conversation at a time, so that
offsets, grouped heads, torch.compile and recomputation are those of a GPU.
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn.attention import varlen

from apps.train.batches.micro_batch import ArrayRows, MicroBatch, micro_batch
from apps.train.loop import worker
from apps.train.model import attention
from apps.train.model.attention import Packing
from tests.train.parallel.test_strategy import CPU, ROW_TOKENS, VOCAB, base, gradients, settings

__all__ = ["base"]  # a fixture


def conversations(cu_seqlens, *tensors):
    """(H, n, D) of every tensor (N, H, D) for each conversation; grouped heads are repeated."""
    heads = tensors[0].shape[1]
    for start, stop in pairwise(cu_seqlens.tolist()):
        parts = [x[start:stop].transpose(0, 1) for x in tensors]
        yield start, stop, [x.repeat_interleave(heads // len(x), 0) for x in parts]


def probabilities(q, k, scale):
    future = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
    return (q @ k.mT * scale).masked_fill(future, -torch.inf).softmax(-1)


@varlen._varlen_attn.register_kernel("cpu")
def _forward(query, key, value, cu_q, cu_k, max_q, max_k, is_causal, scale, *_):
    assert is_causal and max_q == max_k == ROW_TOKENS
    out = torch.empty_like(query)
    for start, stop, (q, k, v) in conversations(cu_q, query, key, value):
        out[start:stop] = (probabilities(q, k, scale) @ v).transpose(0, 1)
    lse = torch.zeros(query.shape[1], query.shape[0])
    return out, lse, torch.zeros(2, dtype=torch.uint64)


@varlen._varlen_attn_backward.register_kernel("cpu")
def _backward(grad, query, key, value, out, lse, cu_q, cu_k, max_q, max_k, causal, rng, scale, *_):
    found = [torch.empty_like(x) for x in (query, key, value)]
    groups = query.shape[1] // key.shape[1]
    for start, stop, (q, k, v, g) in conversations(cu_q, query, key, value, grad):
        p = probabilities(q, k, scale)
        dp = g @ v.mT
        ds = p * (dp - (dp * p).sum(-1, keepdim=True)) * scale
        for into, part in zip(found, (ds @ k, ds.mT @ q, p.mT @ g), strict=True):
            shared = part if into is found[0] else part.unflatten(0, (-1, groups)).sum(1)
            into[start:stop] = shared.transpose(0, 1)
    return tuple(found)


def packed(longest: int) -> ArrayRows:
    """Three rows of random ids, cut into conversations of at most `longest` tokens."""
    rng = np.random.default_rng(longest)
    ids = rng.integers(3, VOCAB, (3, ROW_TOKENS))
    whole, rest = divmod(ROW_TOKENS - 1, longest)  # the last token is a tail
    lengths = [longest] * whole + [rest] * (rest > 0)
    return ArrayRows(ids=ids, loss_mask=rng.random(ids.shape) < 0.6, lengths=[lengths] * 3)


NUM_OFFSETS = {ROW_TOKENS: 17, 9: 17, 2: 65, 1: 129}
"""Longest conversation -> offsets of three such rows."""


def on_a_gpu(batch: MicroBatch, rows: ArrayRows) -> MicroBatch:
    offsets = attention.cumulative(rows.lengths, ROW_TOKENS)
    return replace(batch, packing=Packing(cu_seqlens=offsets, longest=ROW_TOKENS))


def train(base: str, *, gpu: bool, **changes) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of four micro-batches and the sum of their gradients."""
    with worker.process_group():
        strategy = worker.make_strategy(settings(base, **changes), CPU, ROW_TOKENS)
        losses = []
        for longest in NUM_OFFSETS:
            rows = packed(longest)
            batch = micro_batch(rows, np.arange(3), CPU)
            loss = strategy.loss(on_a_gpu(batch, rows) if gpu else batch, 1e-2)
            strategy.backward(loss, is_last=longest == 1)
            losses.append(loss.item())
        return losses, gradients(strategy)


def test_offsets_cover_the_rows_and_have_few_lengths() -> None:
    """Empty conversations cost a GPU time and memory, new lengths a compilation."""
    for longest, num_offsets in NUM_OFFSETS.items():
        rows = packed(longest)
        offsets = attention.cumulative(rows.lengths, ROW_TOKENS)
        assert len(offsets) == num_offsets
        sizes = offsets.diff().tolist()
        ends = [size for row in rows.lengths for size in (*row, 1)]
        assert sizes == ends + [0] * (len(sizes) - len(ends))


# torch.compile's tracer looks at gradients, and tells of context_fn.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("recompute", ["none", "elementwise", "selective", "full"])
@pytest.mark.parametrize("compiled", ["off", "on"])
def test_the_gpus_way_gives_the_losses_and_gradients_of_the_cpus(
    base, monkeypatch, recompute, compiled
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    theirs, expected = train(base, gpu=False)
    ours, found = train(base, gpu=True, activation_checkpointing=recompute, compile=compiled)
    assert ours == pytest.approx(theirs, rel=1e-5)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == (2 if compiled == "on" else 0)  # all layers together: one, then any length
    assert not counters["graph_break"]
