"""What a CPU does in one forward pass, row by row, compiled by numba: norms, products, attention.

Every number depends on its own row and on nothing else in the batch, to the last bit: each row is
computed alone, and each sum is taken in one order. LLVM may fuse a product and a sum ("contract")
but not reorder sums, so speed comes from sums side by side: LANES partial sums of a norm, the
columns of a product's tile, which are outputs, or the scores of keys, or numbers of a value.

Shapes: H query heads, K key heads, D head size, T positions, N width. A chunk of the cache is
[K, G, D, COLUMNS] of keys in G groups and [K, P, CHUNK, COLUMNS] of values in P panels.
"""

import numpy as np
from numba.np.numpy_support import carray

from apps.serve.engine.cpu.bfloat16 import DOT_ROWS, DOTS, FLOATS, WIDE, add_dots
from apps.serve.engine.cpu.intrinsics import (
    COLUMNS,
    ROWS,
    add_tile,
    bits_as_float,
    compiled,
    floats_at,
)
from apps.serve.engine.llama.kv_cache import CHUNK

LANES = 16
DEPTH = 512
"""Terms of a product taken while its inputs lie in the caches."""

_f32 = np.float32


@compiled
def norm_row(x_N, weight_N, eps, out_N):
    """out = x / sqrt(mean(x^2) + eps) * weight"""
    width = len(x_N)
    whole = width // LANES * LANES
    partial = np.zeros(LANES, _f32)
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            partial[lane] += x_N[start + lane] * x_N[start + lane]
    for i in range(whole, width):
        partial[0] += x_N[i] * x_N[i]
    total = _f32(0)
    for lane in range(LANES):
        total += partial[lane]
    scale = _f32(1) / np.sqrt(total / _f32(width) + eps)
    for i in range(width):
        out_N[i] = x_N[i] * scale * weight_N[i]


@compiled
def add_product(x, x_width, depth, num_rows, panel, way, sums, sums_width):
    """sums [num_rows, COLUMNS] += x [num_rows, depth] @ panel [depth, COLUMNS].

    x, panel and sums are addresses, the widths are distances of rows in numbers. Tiles of nearly
    equal height: a low one waits for its own sums.
    """
    highest = DOT_ROWS if way == DOTS else ROWS
    num_tiles = (num_rows + highest - 1) // highest
    for start in range(0, depth, DEPTH):
        terms = min(DEPTH, depth - start)
        at = panel + start * COLUMNS * (4 if way == FLOATS else 2)
        for tile in range(num_tiles):
            first = num_rows * tile // num_tiles
            rows = num_rows * (tile + 1) // num_tiles - first
            here, to = first * x_width + start, sums + 4 * first * sums_width
            if way == DOTS:
                add_dots(x + 2 * here, 2 * x_width, at, terms // 2, to, 4 * sums_width, rows)
            else:
                add_tile(x + 4 * here, x_width, at, way == WIDE, terms, to, sums_width, rows)


@compiled
def gate(gate_N, up_N, out_N):
    """out = silu(gate) * up"""
    for i in range(len(gate_N)):
        x = gate_N[i]
        power = exp(-abs(x))
        out_N[i] = x * (_f32(1) if x >= 0 else power) / (_f32(1) + power) * up_N[i]


@compiled
def rotate(x_D, cos, sin, scale):
    """RoPE in place, halves of a head against each other as Hugging Face lays them out."""
    half = len(x_D) // 2
    for i in range(half):
        a, b = x_D[i] * scale, x_D[half + i] * scale
        x_D[i] = a * cos[i] - b * sin[i]
        x_D[half + i] = b * cos[i] + a * sin[i]


@compiled
def write_row(qkv, num_heads, position, cos, sin, scale, keys_KGDC, values_KPCD):
    """Rotate a row's queries and keys in place; put its keys and values into their chunk."""
    num_kv_heads, _, head_dim, _ = keys_KGDC.shape
    for head in range(num_heads + num_kv_heads):
        at = head * head_dim
        rotate(qkv[at : at + head_dim], cos, sin, scale if head < num_heads else _f32(1))
    place = position % CHUNK
    group, column = place // COLUMNS, place % COLUMNS
    for head in range(num_kv_heads):
        at = (num_heads + head) * head_dim
        for d in range(head_dim):
            keys_KGDC[head, group, d, column] = qkv[at + d]
        at += num_kv_heads * head_dim
        for d in range(head_dim):
            values_KPCD[head, d // COLUMNS, place, d % COLUMNS] = qkv[at + d]


@compiled
def attend_row(phase, q, first, num_keys, scores_HT, out):
    """out [H, D] = attention of one row's queries q [H, D]; its slot begins at chunk `first`.

    The phase (program.py) tells the sizes and where keys and values lie; q and out are addresses.
    The query heads of one key head are rows of one product. Up to COLUMNS numbers behind the last
    head of `out` are written too.
    """
    num_heads, num_kv_heads, size = phase.heads, phase.kv_heads, phase.size
    width, scores = scores_HT.shape[1], scores_HT.ctypes.data
    heads = num_heads // num_kv_heads
    panels = (size + COLUMNS - 1) // COLUMNS
    num_chunks = (num_keys + CHUNK - 1) // CHUNK
    outs = carray(floats_at(out), (num_heads * size + COLUMNS,))
    outs[:] = _f32(0)
    scores_HT[:, : num_chunks * CHUNK] = _f32(0)
    for chunk in range(num_chunks):
        used = min(CHUNK, num_keys - chunk * CHUNK)
        for kv_head in range(num_kv_heads):
            at = phase.keys + 4 * CHUNK * size * ((first + chunk) * num_kv_heads + kv_head)
            for head in range(kv_head * heads, (kv_head + 1) * heads, ROWS):
                rows = min(ROWS, (kv_head + 1) * heads - head)
                for start in range(0, used, COLUMNS):
                    add_tile(
                        q + 4 * head * size, size, at + 4 * start * size, 0, size,
                        scores + 4 * (head * width + chunk * CHUNK + start), width, rows,
                    )  # fmt: skip
    for head in range(num_heads):
        scores_HT[head, width - 1] = _exponentials(scores_HT[head], num_keys)
    for chunk in range(num_chunks):
        used = min(CHUNK, num_keys - chunk * CHUNK)
        for kv_head in range(num_kv_heads):
            place = (first + chunk) * num_kv_heads + kv_head
            at = phase.values + 4 * CHUNK * panels * COLUMNS * place
            for head in range(kv_head * heads, (kv_head + 1) * heads, ROWS):
                rows = min(ROWS, (kv_head + 1) * heads - head)
                for panel in range(panels):
                    add_tile(
                        scores + 4 * (head * width + chunk * CHUNK), width,
                        at + 4 * CHUNK * COLUMNS * panel, 0, used,
                        out + 4 * (head * size + panel * COLUMNS), size, rows,
                    )  # fmt: skip
    for head in range(num_heads):
        for i in range(head * size, (head + 1) * size):
            outs[i] /= scores_HT[head, width - 1]


@compiled
def _exponentials(scores, num_keys):
    """exp(score - highest) in place; returns their sum."""
    whole = num_keys // LANES * LANES
    highest = scores[0]
    for i in range(num_keys):
        highest = max(highest, scores[i])
    for i in range(num_keys):
        scores[i] = exp(scores[i] - highest)
    partial = np.zeros(LANES, _f32)
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            partial[lane] += scores[start + lane]
    for i in range(whole, num_keys):
        partial[0] += scores[i]
    total = _f32(0)
    for lane in range(LANES):
        total += partial[lane]
    return total


@compiled
def exp(x):
    """e^x for x <= 0, in operations that vectorise; within 1e-7 of the value.

    x = n ln 2 + r with |r| <= ln(2) / 2, a polynomial for e^r, and n added to the exponent.
    """
    x = max(x, _f32(-87.0))
    n = np.floor(x * _f32(1.44269504) + _f32(0.5))
    r = x - n * _f32(0.693359375) + n * _f32(2.12194440e-4)
    p = _f32(1.9875691500e-4)
    p = p * r + _f32(1.3981999507e-3)
    p = p * r + _f32(8.3334519073e-3)
    p = p * r + _f32(4.1665795894e-2)
    p = p * r + _f32(1.6666665459e-1)
    p = p * r + _f32(5.0000001201e-1)
    p = p * r * r + r + _f32(1.0)
    return p * bits_as_float((np.int32(n) + np.int32(127)) << np.int32(23))
