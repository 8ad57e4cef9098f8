"""Attention over packed rows: a token sees the earlier tokens of its own conversation only.

Registered with transformers under the name `packed`, so every model that speaks its
AttentionInterface uses it unchanged. Boundaries are computed once a micro-batch and reach each
layer as keyword arguments:

    GPU   torch.nn.attention.varlen over the flattened rows. The tail of `cu_seqlens` repeats the
          end, so that it has one of a few lengths: a new one would recompile every layer.
    CPU   scaled_dot_product_attention with one block-diagonal causal mask a micro-batch; on a GPU
          too in fp32 and with capped scores, which flash attention does not compute.

Legend: B rows, T tokens a row, H heads, D head size, N = B*T.
"""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Required, TypedDict, Unpack, cast

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "packed"
MIN_CONVERSATIONS = 4
"""offsets a row for which there is always room; ShareGPT has 1.3 conversations in 2,048 tokens"""
_takes_grouped = "enable_gqa" in inspect.signature(varlen_attn).parameters
_grouped_varlen = partial(varlen_attn, enable_gqa=True) if _takes_grouped else varlen_attn
"""torch 2.11 takes fewer key than query heads unasked, 2.12 wants to be told"""


@dataclass(frozen=True, slots=True)
class Packing:
    """Which tokens see each other in one micro-batch, as each attention layer receives it.

    One of the two is there: offsets of the conversations in the flattened rows for flash attention,
    or a mask (B, 1, T, T).
    """

    cu_seqlens: torch.Tensor | None = None
    block_mask: torch.Tensor | None = None
    longest: int = 0
    """most tokens of a conversation, beside `cu_seqlens`"""


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Where conversations begin and end in one micro-batch."""

    position_ids_BT: torch.Tensor
    packing: Packing


class Scores(TypedDict, total=False):
    """What a layer says about its attention scores, under transformers' names."""

    scaling: Required[float]
    sliding_window: int | None
    """a token sees itself and so many tokens less one before it"""
    softcap: float | None
    """c bounds the scores to c tanh(x / c); no fast kernel does that, so it needs a mask"""


def boundaries(
    lengths: list[list[int]], row_tokens: int, device: torch.device, *, with_mask: bool = False
) -> Boundaries:
    """Boundaries of B rows whose conversations have the given lengths; a row's tail is its own."""
    sizes = _sizes(lengths, row_tokens)
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    positions = torch.arange(len(starts)) - starts
    position_ids = positions.view(len(lengths), row_tokens).to(device)
    if device.type == "cuda" and not with_mask:
        cu_seqlens = cumulative(lengths, row_tokens).to(device)
        return Boundaries(position_ids, Packing(cu_seqlens=cu_seqlens, longest=row_tokens))
    owner = starts.view(len(lengths), row_tokens)
    same = owner[:, :, None] == owner[:, None, :]
    causal = torch.ones(row_tokens, row_tokens, dtype=torch.bool).tril()
    block_mask = (same & causal)[:, None].to(device)
    return Boundaries(position_ids, Packing(block_mask=block_mask))


def cumulative(lengths: list[list[int]], row_tokens: int) -> torch.Tensor:
    """Offsets of all conversations in the flattened rows, int32, the end repeated.

    The room is the next power of two, not one offset a token: flash attention starts blocks for
    empty conversations too, and its backward pass allocates 128 rows of fp32 dQ for each.
    """
    ends = _sizes(lengths, row_tokens).cumsum(0)
    room = 1 << (max(len(ends), MIN_CONVERSATIONS * len(lengths)) - 1).bit_length()
    offsets = torch.full((room + 1,), int(ends[-1]), dtype=torch.int32)
    offsets[0] = 0
    offsets[1 : len(ends) + 1] = ends
    return offsets


def _sizes(lengths: list[list[int]], row_tokens: int) -> torch.Tensor:
    return torch.tensor([size for row in lengths for size in _with_tail(row, row_tokens)])


def _with_tail(lengths: list[int], row_tokens: int) -> list[int]:
    tail = row_tokens - sum(lengths)
    return [*lengths, tail] if tail else list(lengths)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
    **scores: Unpack[Scores],
) -> tuple[torch.Tensor, None]:
    """Query (B, H, T, D), key and value (B, Hkv, T, D) -> (B, T, H, D)."""
    scaling, softcap = scores["scaling"], scores.get("softcap")
    window = scores.get("sliding_window") or None
    if window is not None and window >= query.shape[2]:
        window = None
    if packing is None or (packing.cu_seqlens is None and packing.block_mask is None):
        raise ValueError("packed attention needs the `packing` of `boundaries`")
    if packing.cu_seqlens is not None and softcap is None:
        return _varlen(query, key, value, packing, scaling, window), None
    block_mask = packing.block_mask
    if block_mask is None:
        raise ValueError("attention with capped scores needs a `packing` with a mask")
    grouped = query.shape[1] != key.shape[1]
    if window is not None:
        block_mask = block_mask & _near(query.shape[2], window, query.device)
    if softcap is not None:
        return _capped(query, key, value, block_mask, scaling, softcap), None
    if grouped and query.is_cuda:  # there, no kernel with a mask takes groups but the slowest
        repeats, grouped = query.shape[1] // key.shape[1], False
        key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    out = scaled_dot_product_attention(
        query, key, value, attn_mask=block_mask, scale=scaling, enable_gqa=grouped
    )
    return out.transpose(1, 2), None


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    softcap: float,
) -> torch.Tensor:
    repeats = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    scores = torch.tanh(query @ key.mT * scaling / softcap) * softcap
    scores = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32)
    return (scores.to(value.dtype) @ value).transpose(1, 2)


def _near(row_tokens: int, window: int, device: torch.device) -> torch.Tensor:
    """(T, T), true where a key is fewer than `window` tokens before its query.

    Of 4 tokens and a window of 2: query 3 sees keys 2 and 3 (and later ones, which are masked).
    """
    return torch.ones(row_tokens, row_tokens, dtype=torch.bool, device=device).triu(1 - window)


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    B, _, T, _ = query.shape
    q_NHD, k_NHD, v_NHD = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    attend = varlen_attn if query.shape[1] == key.shape[1] else _grouped_varlen
    cu_seqlens, longest = cast(torch.Tensor, packing.cu_seqlens), packing.longest
    out_NHD = attend(
        q_NHD,
        k_NHD,
        v_NHD,
        cu_seqlens,
        cu_seqlens,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
    )
    assert isinstance(out_NHD, torch.Tensor)  # a pair only with return_aux
    return out_NHD.unflatten(0, (B, T))


AttentionInterface.register(NAME, packed_attention)
