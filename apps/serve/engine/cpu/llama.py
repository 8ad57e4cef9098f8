"""Forward pass of LLaMA-family models on a CPU: one compiled program for the whole of it.

Every number a token gets is independent of what else is in the batch, how the prompt was chunked,
and whether a token was prefilled or decoded, to the last bit (kernels.py says how). Weights are
float32 or bfloat16; sums, norms, attention and what lies between layers are float32. A CPU with
instructions for bfloat16 gets the inputs of products in it too (bfloat16.py).
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from apps.serve.engine.cpu import program
from apps.serve.engine.cpu.bfloat16 import (
    BLOCK_ROWS,
    DOTS,
    FLOATS,
    TILES,
    WIDE,
    best_way,
    pack_pairs,
    padded_depth,
)
from apps.serve.engine.cpu.intrinsics import COLUMNS, pack, padded
from apps.serve.engine.cpu.threads import Team
from apps.serve.engine.llama.kv_cache import CHUNK, Cache, Rows
from apps.serve.engine.llama.rope import rotation
from apps.serve.engine.llama.weights import Linear, Network

TASK_ROWS, TASK_PANELS = 256, 4
"""Of one task of a product."""
_MAP_NORESERVE = 0x4000  # Linux; the mmap module names it from Python 3.13 on


class Packed(NamedTuple):
    """One matrix in panels."""

    panels: Tensor
    bias: Tensor | None
    depth: int
    """of its panels"""

    @property
    def width(self) -> int:
        return COLUMNS * len(self.panels)


def pack_linear(linear: Linear, way: int) -> Packed:
    """The panels that `way` of bfloat16.py multiplies by."""
    bias, depth = None, linear.weight.shape[1]
    if way in (FLOATS, WIDE):
        panels = pack(linear.weight)
    else:
        panels, depth = pack_pairs(linear.weight), padded_depth(depth)
    if linear.bias is not None:
        bias = torch.zeros(COLUMNS * len(panels))
        bias[: len(linear.bias)] = linear.bias
    return Packed(panels, bias, depth)


class _Layer(NamedTuple):
    attention_norm: Tensor
    qkv: Packed
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Packed
    ffn_norm: Tensor
    gate_up: Packed
    """Panels of the two by turns."""
    down: Packed


class CompiledLlama:
    """A model folder, loaded for inference."""

    def __init__(self, folder: str | Path, *, dtype: torch.dtype, num_threads: int = 1) -> None:
        network = Network(folder, "cpu", dtype, vector_dtype=torch.float32)
        self.shape, self.num_threads = network.shape, num_threads
        self.embedding, self.norm = network.embedding, network.norm
        self.way = FLOATS if dtype == torch.float32 else best_way()
        self.head = self._pack(network.head)
        del network.head
        self.layers = []
        while network.layers:  # one by one, so that no layer is there twice
            layer = network.layers.pop(0)
            self.layers.append(_Layer(
                layer.attention_norm, self._pack(layer.qkv), layer.q_norm, layer.k_norm,
                self._pack(layer.out), layer.ffn_norm, self._by_turns(layer.gate, layer.up),
                self._pack(layer.down),
            ))  # fmt: skip

    def _pack(self, linear: Linear) -> Packed:
        return pack_linear(linear, self.way)

    def _by_turns(self, gate: Linear, up: Linear) -> Packed:
        both = [self._pack(gate), self._pack(up)]
        panels = torch.stack([part.panels for part in both], dim=1).flatten(0, 1)
        biases = [part.bias.view(-1, COLUMNS) for part in both if part.bias is not None]
        bias = torch.stack(biases, dim=1).flatten() if biases else None
        return Packed(panels, bias, both[0].depth)

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
        cache.x[:num_rows, : self.shape.hidden_size] = self.embedding[torch.tensor(rows.token_ids)]
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
        self.keys = _lazy_zeros((*chunks, CHUNK // COLUMNS, shape.head_dim, COLUMNS))
        self.values = _lazy_zeros((*chunks, -(-shape.head_dim // COLUMNS), CHUNK, COLUMNS))
        layer, rows = model.layers[0], max_rows + BLOCK_ROWS  # tiles are read whole
        self.x, self._qkv, self.logits = (
            _lazy_zeros((rows, width))
            for width in (layer.out.width, layer.qkv.width, model.head.width)
        )
        self._is_narrow = model.way in (DOTS, TILES)
        inputs = torch.bfloat16 if self._is_narrow else torch.float32
        self._y, self._mixed, self._h = (
            _lazy_zeros((rows, width), inputs)
            for width in (layer.out.width, padded(layer.out.depth), layer.gate_up.width // 2)
        )
        self._model, self._rotation = model, rotation(shape)
        phases = np.array(list(self._phases()), dtype=program.PHASE)
        longest = self.chunks_per_slot * CHUNK
        self.team = Team(
            phases, np.zeros((4, max(2, max_rows)), np.int64), (shape.num_heads, longest + 1),
            model.num_threads,
        )  # fmt: skip

    def close(self) -> None:
        self.team.close()

    def _phases(self) -> Iterator[tuple]:
        model = self._model
        for index, layer in enumerate(model.layers):
            heads = self._heads(index, layer)
            yield self._norm(layer.attention_norm)
            yield self._product(self._y, layer.qkv, self._qkv)
            yield _phase(program.WRITE, self._qkv, self._qkv, row_block=4, **heads)
            yield _phase(
                program.ATTEND, self._qkv, self._mixed, row_block=1, is_narrow=self._is_narrow,
                **heads,
            )  # fmt: skip
            yield self._product(self._mixed, layer.out, self.x, adds=True)
            yield self._norm(layer.ffn_norm)
            yield self._product(
                self._y, layer.gate_up, self._h, kind=program.GATED, is_narrow=self._is_narrow
            )
            yield self._product(self._h, layer.down, self.x, adds=True)
        yield self._norm(model.norm, is_picked=True)
        yield self._product(self._y, model.head, self.logits, is_picked=True)

    def _norm(self, weight: Tensor, **more: Any) -> tuple:
        return _phase(
            program.NORM, self.x, self._y, row_block=4, depth=len(weight), weight=weight,
            is_narrow=self._is_narrow, eps=self.shape.norm_eps, **more,
        )  # fmt: skip

    def _product(
        self, x: Tensor, packed: Packed, out: Tensor, kind: int = program.PRODUCT, **more: Any
    ) -> tuple:
        panels, way = len(packed.panels), self._model.way
        return _phase(
            kind, x, out, row_block=TASK_ROWS,
            groups=max(1, panels // TASK_PANELS), panels=panels, depth=packed.depth,
            weight=packed.panels, bias=packed.bias, way=way, **more,
        )  # fmt: skip

    def _heads(self, index: int, layer: _Layer) -> dict[str, Any]:
        shape, (cos, sin) = self.shape, self._rotation
        return {
            "heads": shape.num_heads, "kv_heads": shape.num_kv_heads, "size": shape.head_dim,
            "chunks": self.num_chunks, "keys": self.keys[index], "values": self.values[index],
            "cos": cos, "sin": sin, "q_norm": layer.q_norm, "k_norm": layer.k_norm,
            "eps": shape.norm_eps, "scale": shape.head_dim**-0.5,
        }  # fmt: skip


def _phase(kind: int, x: Tensor, out: Tensor, **more: Any) -> tuple:
    """A row of program.PHASE; tensors become their addresses."""
    fields = {
        "kind": kind, "groups": 1, "x": x, "x_width": x.shape[1], "out": out,
        "out_width": out.shape[1], **more,
    }  # fmt: skip
    values = (fields.get(name) for name in program.PHASE.names or ())
    return tuple(v.data_ptr() if isinstance(v, Tensor) else v or 0 for v in values)


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Private memory whose pages are committed when first written."""
    num_bytes = dtype.itemsize * torch.Size(shape).numel()
    pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    return torch.frombuffer(pages, dtype=dtype).view(shape)
