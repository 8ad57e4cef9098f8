"""A KV cache of slots, one request in each, and attention over it in torch.

A slot is a run of chunks of CHUNK tokens; after all slots come spare chunks, in which prefixes are
kept. `TorchAttention` takes the rows of one pass with `plan`, then their q, k and v by layer.

Shapes: R rows, H query heads, K key heads, D head size, T positions, B requests in a group.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from apps.serve.engine.llama.model_folder import Shape
from apps.serve.engine.llama.rope import rotation

CHUNK = 32
"""Tokens of a chunk; the compiled pass stores keys transposed, so that scores come side by side."""


@dataclass(slots=True)
class Rows:
    """One forward pass: the next token of `num_decode` requests, then chunks of prompts."""

    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    num_decode: int = 0
    logit_rows: list[int] = field(default_factory=list)
    """rows whose logits are wanted"""

    def add(self, token_ids: list[int], position: int, slot: int) -> None:
        """Consecutive tokens of one request, the first at `position`."""
        self.token_ids += token_ids
        self.positions += range(position, position + len(token_ids))
        self.slots += [slot] * len(token_ids)


class Cache:
    """Keys and values, chunk by chunk."""

    keys: Tensor
    values: Tensor

    def __init__(self, shape: Shape, num_slots: int, num_tokens: int, num_spare: int) -> None:
        self.shape = shape
        self.chunks_per_slot = -(-num_tokens // CHUNK)
        self.first_spare = num_slots * self.chunks_per_slot
        self.num_chunks = self.first_spare + num_spare

    def chunk_of(self, slot: int, index: int) -> int:
        return slot * self.chunks_per_slot + index

    def copy_chunk(self, source: int, target: int) -> None:
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]

    def close(self) -> None:
        """End the threads that it keeps."""


class TorchAttention(Cache):
    """Any device and dtype, unoptimised: keys are gathered and masked."""

    def __init__(
        self, shape: Shape, num_slots: int, num_tokens: int, num_spare: int,
        device: str, dtype: torch.dtype,
    ) -> None:  # fmt: skip
        super().__init__(shape, num_slots, num_tokens, num_spare)
        size = (shape.num_layers, self.num_chunks, CHUNK, shape.num_kv_heads, shape.head_dim)
        self.keys, self.values = (torch.zeros(size, device=device, dtype=dtype) for _ in range(2))
        self._rotation = torch.complex(*rotation(shape)).to(device)

    def plan(self, rows: Rows) -> None:
        device = self.keys.device
        self._positions = torch.tensor(rows.positions, device=device)
        slots = torch.tensor(rows.slots, device=device)
        self._write_at = slots * self.chunks_per_slot * CHUNK + self._positions
        self._groups = list(self._grouped(rows, slots))

    def _grouped(self, rows: Rows, slots: Tensor) -> Iterator["_Group"]:
        """The decoded rows together, then each prompt's rows."""
        start = 0
        while start < len(rows.slots):
            is_decoded = start < rows.num_decode
            length = rows.num_decode if is_decoded else rows.slots.count(rows.slots[start])
            group = slice(start, start + length)
            requests = slots[group] if is_decoded else slots[start : start + 1]
            keys = torch.arange(max(rows.positions[group]) + 1, device=slots.device)
            mask = keys <= self._positions[group].view(len(requests), 1, -1, 1)
            yield _Group(group, requests, mask)
            start += length

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """[R, H * D] from [R, (H + 2 K) * D], whose keys and values enter the cache first."""
        heads, kv_heads = self.shape.num_heads, self.shape.num_kv_heads
        qkv_RHD = qkv.view(len(qkv), heads + 2 * kv_heads, -1)
        q, k = self._rotated(qkv_RHD[:, : heads + kv_heads]).split([heads, kv_heads], dim=1)
        keys, values = (x[layer].flatten(0, 1) for x in (self.keys, self.values))
        keys[self._write_at], values[self._write_at] = k, qkv_RHD[:, heads + kv_heads :]
        return torch.cat([self._attend(q, keys, values, group) for group in self._groups])

    def _rotated(self, x_RHD: Tensor) -> Tensor:
        halves = torch.stack(x_RHD.float().chunk(2, dim=-1), dim=-1)
        turned = torch.view_as_complex(halves) * self._rotation[self._positions].unsqueeze(1)
        return torch.cat(torch.view_as_real(turned).unbind(-1), dim=-1).to(x_RHD.dtype)

    def _attend(self, q_RHD: Tensor, keys: Tensor, values: Tensor, group: "_Group") -> Tensor:
        q = q_RHD[group.rows].unflatten(0, (len(group.slots), -1)).transpose(1, 2)
        at = torch.arange(group.mask.shape[-1], device=keys.device)
        at = at + self.chunks_per_slot * CHUNK * group.slots[:, None]
        k, v = (x[at].transpose(1, 2) for x in (keys, values))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask, enable_gqa=True)
        return out.transpose(1, 2).flatten(2).flatten(0, 1)


class _Group(NamedTuple):
    """Rows of one product: one row each of several requests, or several of one."""

    rows: slice
    slots: Tensor
    mask: Tensor
    """[B, 1, rows of each, T]: which keys a row sees"""
