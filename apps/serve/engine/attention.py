"""Attention over a KV cache of slots: one request, one slot; on a CPU compiled, elsewhere in torch.

A slot is a run of chunks of CHUNK tokens; after all slots come spare chunks, in which prefixes are
kept. Both kinds take the rows of one pass with `plan`, then their q, k and v layer by layer.

Shapes: R rows, H query heads, K key heads, D head size, T positions, B requests in a group.
"""

import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from apps.common.errors import ConfigError
from apps.serve.engine import kernels, team
from apps.serve.engine.kernels import CHUNK
from apps.serve.engine.model_folder import Shape
from apps.serve.engine.rope import rotation

_MAP_NORESERVE = 0x4000  # Linux; the mmap module names it from Python 3.13 on


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


class Attention(ABC):
    """The cache, and what reads and writes it."""

    keys: Tensor
    values: Tensor

    def __init__(self, shape: Shape, num_slots: int, num_tokens: int, num_spare: int) -> None:
        self.shape = shape
        self.chunks_per_slot = -(-num_tokens // CHUNK)
        self.first_spare = num_slots * self.chunks_per_slot
        self.num_chunks = self.first_spare + num_spare

    @abstractmethod
    def plan(self, rows: Rows) -> None: ...

    @abstractmethod
    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """[R, H * D] from [R, (H + 2 K) * D], whose keys and values enter the cache first."""

    def chunk_of(self, slot: int, index: int) -> int:
        return slot * self.chunks_per_slot + index

    def copy_chunk(self, source: int, target: int) -> None:
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]


class CompiledAttention(Attention):
    """float32 on a CPU, whatever the weights are."""

    def __init__(self, shape: Shape, num_slots: int, num_tokens: int, num_spare: int) -> None:
        super().__init__(shape, num_slots, num_tokens, num_spare)
        heads, size = shape.num_kv_heads, shape.head_dim
        if size % kernels.UNROLL:
            raise ConfigError(
                f"heads of {size} numbers are not supported on a CPU; they must be a multiple of "
                f"{kernels.UNROLL}: serve this model with engine: vllm"
            )
        chunks = (shape.num_layers, self.num_chunks, heads)
        self.keys = _lazy_zeros((*chunks, size, CHUNK))
        self.values = _lazy_zeros((*chunks, CHUNK, size))
        self._layers = list(zip(self.keys.numpy(), self.values.numpy(), strict=True))
        self._cos, self._sin = (part.numpy() for part in rotation(shape))
        self._scale = np.float32(size**-0.5)

    def plan(self, rows: Rows) -> None:
        self._positions = np.array(rows.positions)
        self._firsts = np.array(rows.slots) * self.chunks_per_slot
        self._num_keys = max(rows.positions) + 1

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        shape, (keys, values) = self.shape, self._layers[layer]
        kernels.write(
            qkv.numpy(), shape.num_heads, self._firsts, self._positions, self._cos, self._sin,
            self._scale, keys, values,
        )  # fmt: skip
        out = torch.empty(len(qkv), shape.num_heads * shape.head_dim)
        team.run(kernels.attend.address, np.array([
            0, len(qkv), shape.num_heads, shape.num_kv_heads, shape.head_dim, self.num_chunks,
            self._num_keys, qkv.data_ptr(), self._firsts.ctypes.data, self._positions.ctypes.data,
            keys.ctypes.data, values.ctypes.data, out.data_ptr(),
        ]))  # fmt: skip
        return out


class TorchAttention(Attention):
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


def _lazy_zeros(shape: tuple[int, ...]) -> Tensor:
    """Private memory whose pages are committed when first written."""
    num_bytes = 4 * torch.Size(shape).numel()
    pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    return torch.frombuffer(pages, dtype=torch.float32).view(shape)
