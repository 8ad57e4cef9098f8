"""Forward pass of LLaMA-family models on a CPU: one compiled program for the whole of it.

Every number a token gets is independent of what else is in the batch, how the prompt was chunked,
and whether a token was prefilled or decoded, to the last bit (kernels.py says how). Weights are
float32 or bfloat16; all that is computed is float32.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from apps.common.errors import ConfigError
from apps.serve.engine.cpu import kernels, program
from apps.serve.engine.cpu.intrinsics import pack, padded
from apps.serve.engine.cpu.threads import Team
from apps.serve.engine.llama.kv_cache import CHUNK, Cache, Rows
from apps.serve.engine.llama.rope import rotation
from apps.serve.engine.llama.weights import Linear, Network

ROW_BLOCK = 48
"""Rows of one task of a product; their inputs stay in a core's cache."""
TASK_PANELS = 4
_MAP_NORESERVE = 0x4000  # Linux; the mmap module names it from Python 3.13 on


class _Packed(NamedTuple):
    """One matrix in panels."""

    panels: Tensor
    bias: Tensor

    @property
    def depth(self) -> int:
        return self.panels.shape[1]

    @property
    def width(self) -> int:
        return len(self.bias)


class _PackedLayer(NamedTuple):
    attention_norm: Tensor
    qkv: _Packed
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: _Packed
    ffn_norm: Tensor
    gate_up: _Packed
    """Panels of the two by turns."""
    down: _Packed


class CompiledLlama:
    """A model folder, loaded for inference."""

    def __init__(self, folder: str | Path, *, dtype: torch.dtype, num_threads: int = 1) -> None:
        network = Network(folder, "cpu", dtype, norm_dtype=torch.float32)
        self.shape, self.num_threads = network.shape, num_threads
        if self.shape.head_dim % kernels.UNROLL:
            raise ConfigError(
                f"heads of {self.shape.head_dim} numbers are not supported on a CPU; they must be "
                f"a multiple of {kernels.UNROLL}: serve this model with engine: vllm"
            )
        self.embedding, self.norm = network.embedding, network.norm
        self.head = _packed(network.head)
        self.layers = []
        while network.layers:  # one by one, so that no layer is there twice
            layer = network.layers.pop(0)
            self.layers.append(_PackedLayer(
                layer.attention_norm, _packed(layer.qkv), layer.q_norm, layer.k_norm,
                _packed(layer.out), layer.ffn_norm, _by_turns(layer.gate, layer.up),
                _packed(layer.down),
            ))  # fmt: skip

    def new_cache(
        self, num_slots: int, num_tokens: int, num_spare: int = 0, max_rows: int = 512
    ) -> "CompiledCache":
        """A KV cache of `num_slots` requests of `num_tokens` each, and spare chunks, for passes of
        at most `max_rows` rows."""
        return CompiledCache(self, num_slots, num_tokens, num_spare, max_rows)

    @torch.inference_mode()
    def forward(self, rows: Rows, cache: "CompiledCache") -> Tensor:
        """Float32 logits [len(rows.logit_rows), vocabulary], valid until the next pass; writes the
        rows' keys and values."""
        num_rows, num_picked = len(rows.token_ids), len(rows.logit_rows)
        batch = cache.team.batch
        batch[program.NUM_ROWS, :2] = num_rows, num_picked
        batch[program.POSITIONS, :num_rows] = rows.positions
        batch[program.FIRSTS, :num_rows] = rows.slots
        batch[program.FIRSTS, :num_rows] *= cache.chunks_per_slot
        batch[program.PICKED, :num_picked] = rows.logit_rows
        cache.x[:num_rows] = self.embedding[torch.tensor(rows.token_ids)]
        cache.team.run()
        return cache.logits[:num_picked, : self.shape.vocab_size]


class CompiledCache(Cache):
    """Keys and values in float32, and the program that fills and reads them."""

    def __init__(
        self, model: CompiledLlama, num_slots: int, num_tokens: int, num_spare: int, max_rows: int
    ) -> None:
        shape = model.shape
        super().__init__(shape, num_slots, num_tokens, num_spare)
        chunks = (shape.num_layers, self.num_chunks, shape.num_kv_heads)
        self.keys = _lazy_zeros((*chunks, shape.head_dim, CHUNK))
        self.values = _lazy_zeros((*chunks, CHUNK, shape.head_dim))
        layer = model.layers[0]
        self.x, self._y, self._qkv, self._mixed, self._h, self.logits = (
            _lazy_zeros((max_rows, width))
            for width in (
                shape.hidden_size, shape.hidden_size, layer.qkv.width, layer.out.depth,
                layer.gate_up.width // 2, model.head.width,
            )
        )  # fmt: skip
        self._model, self._rotation = model, rotation(shape)
        phases = np.array(list(self._phases()), dtype=program.PHASE)
        longest = self.chunks_per_slot * CHUNK
        self.team = Team(
            phases, np.zeros((4, max(2, max_rows)), np.int64), (shape.num_heads, longest),
            model.num_threads,
        )  # fmt: skip

    def close(self) -> None:
        self.team.close()

    def _phases(self) -> Iterator[tuple]:
        model = self._model
        for index, layer in enumerate(model.layers):
            heads = self._heads(index, layer)
            yield self._norm(self.x, layer.attention_norm, self._y)
            yield _product(self._y, layer.qkv, self._qkv)
            yield _phase(program.WRITE, self._qkv, self._qkv, row_block=4, **heads)
            yield _phase(program.ATTEND, self._qkv, self._mixed, row_block=1, **heads)
            yield _product(self._mixed, layer.out, self.x, adds=True)
            yield self._norm(self.x, layer.ffn_norm, self._y)
            yield _product(self._y, layer.gate_up, self._h, kind=program.GATED)
            yield _product(self._h, layer.down, self.x, adds=True)
        yield self._norm(self.x, model.norm, self._y, is_picked=True)
        yield _product(self._y, model.head, self.logits, is_picked=True)

    def _norm(self, x: Tensor, weight: Tensor, out: Tensor, **more: Any) -> tuple:
        return _phase(
            program.NORM, x, out, row_block=4, depth=len(weight), weight=weight,
            eps=self.shape.norm_eps, **more,
        )  # fmt: skip

    def _heads(self, index: int, layer: _PackedLayer) -> dict[str, Any]:
        shape, (cos, sin) = self.shape, self._rotation
        return {
            "heads": shape.num_heads, "kv_heads": shape.num_kv_heads, "size": shape.head_dim,
            "chunks": self.num_chunks, "keys": self.keys[index], "values": self.values[index],
            "cos": cos, "sin": sin, "q_norm": layer.q_norm, "k_norm": layer.k_norm,
            "eps": shape.norm_eps, "scale": shape.head_dim**-0.5,
        }  # fmt: skip


def _product(x: Tensor, packed: _Packed, out: Tensor, kind: int = program.PRODUCT, **more) -> tuple:
    panels = len(packed.panels)
    return _phase(
        kind, x, out, row_block=ROW_BLOCK, groups=max(1, panels // TASK_PANELS), panels=panels,
        depth=packed.depth, weight=packed.panels, bias=packed.bias,
        is_half=packed.panels.dtype == torch.bfloat16, **more,
    )  # fmt: skip


def _phase(kind: int, x: Tensor, out: Tensor, **more: Any) -> tuple:
    """A row of program.PHASE; tensors become their addresses."""
    fields = {
        "kind": kind, "groups": 1, "x": x, "x_width": x.shape[1], "out": out,
        "out_width": out.shape[1], **more,
    }  # fmt: skip
    values = (fields.get(name) for name in program.PHASE.names or ())
    return tuple(v.data_ptr() if isinstance(v, Tensor) else v or 0 for v in values)


def _packed(linear: Linear) -> _Packed:
    columns = len(linear.weight)
    bias = torch.zeros(padded(columns))
    if linear.bias is not None:
        bias[:columns] = linear.bias
    return _Packed(pack(linear.weight), bias)


def _by_turns(gate: Linear, up: Linear) -> _Packed:
    both = [_packed(gate), _packed(up)]
    panels = torch.stack([part.panels for part in both], dim=1).flatten(0, 1)
    columns = panels.shape[-1]
    bias = torch.stack([part.bias.view(-1, columns) for part in both], dim=1).flatten()
    return _Packed(panels, bias)


def _lazy_zeros(shape: tuple[int, ...]) -> Tensor:
    """Private memory whose pages are committed when first written."""
    num_bytes = 4 * torch.Size(shape).numel()
    pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    return torch.frombuffer(pages, dtype=torch.float32).view(shape)
