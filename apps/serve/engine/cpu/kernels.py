"""What a CPU does in one forward pass, row by row, compiled by numba: norms, products, attention.

Every number depends on its own row and on nothing else in the batch, to the last bit: each row is
computed alone, and each sum is taken in one order. LLVM may fuse a product and a sum ("contract")
but not reorder sums, so speed comes from sums side by side: LANES partial sums of a norm, the
columns of a product's tile, the scores of CHUNK keys, the D numbers of an output.

Shapes: R rows, H query heads, K key heads, D head size, S slots, C key chunks, N width.
"""

import numpy as np

from apps.serve.engine.cpu.intrinsics import COLUMNS, ROWS, add_tile, bits_as_float, compiled
from apps.serve.engine.llama.kv_cache import CHUNK

LANES = 8
UNROLL = 8
"""Terms added in one pass over a sum's vector; divides D and CHUNK."""
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
def product(x, width, depth, num_rows, panel, is_half, bias, sums):
    """sums [num_rows, COLUMNS] = bias + x [num_rows, depth] @ panel [depth, COLUMNS].

    x, panel are addresses. Tiles of nearly equal height: a low one waits for its own sums.
    """
    num_tiles = (num_rows + ROWS - 1) // ROWS
    for row in range(num_rows):
        sums[row] = bias
    for start in range(0, depth, DEPTH):
        terms = min(DEPTH, depth - start)
        at = panel + start * COLUMNS * (2 if is_half else 4)
        for tile in range(num_tiles):
            first = num_rows * tile // num_tiles
            last = num_rows * (tile + 1) // num_tiles
            add_tile(
                x + 4 * (first * width + start), width, at, is_half, terms,
                sums.ctypes.data + 4 * first * COLUMNS, COLUMNS, last - first,
            )  # fmt: skip


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
def write_row(qkv, num_heads, position, cos, sin, scale, keys_KDC, values_KCD):
    """Rotate a row's queries and keys in place; put its keys and values into their chunk."""
    num_kv_heads, head_dim, _ = keys_KDC.shape
    for head in range(num_heads + num_kv_heads):
        at = head * head_dim
        rotate(qkv[at : at + head_dim], cos, sin, scale if head < num_heads else _f32(1))
    column = position % CHUNK
    for head in range(num_kv_heads):
        at = (num_heads + head) * head_dim
        for d in range(head_dim):
            keys_KDC[head, d, column] = qkv[at + d]
        at += num_kv_heads * head_dim
        for d in range(head_dim):
            values_KCD[head, column, d] = qkv[at + d]


@compiled
def attend_row(qkv_N, num_heads, first, num_keys, keys, values, scores_HT, out_N):
    """Chunk by chunk and head by head, in the order in which a slot lies in memory."""
    _, num_kv_heads, head_dim, _ = keys.shape
    group = num_heads // num_kv_heads
    num_chunks = (num_keys + CHUNK - 1) // CHUNK
    for chunk in range(num_chunks):
        for head in range(num_heads):
            part = scores_HT[head, chunk * CHUNK : (chunk + 1) * CHUNK]
            part[:] = _f32(0)
            kv_head = head // group
            for d in range(0, head_dim, UNROLL):
                q = qkv_N[head * head_dim + d : head * head_dim + d + UNROLL]
                _add_products(part, q, keys[first + chunk, kv_head, d : d + UNROLL])
    for head in range(num_heads):
        total = _exponentials(scores_HT[head], num_keys)
        for key in range(num_keys):
            scores_HT[head, key] /= total
    out_N[:] = _f32(0)
    for chunk in range(num_chunks):
        for head in range(num_heads):
            out = out_N[head * head_dim : (head + 1) * head_dim]
            kv_head = head // group
            used = min(CHUNK, num_keys - chunk * CHUNK)
            whole = used // UNROLL * UNROLL
            p, block = scores_HT[head, chunk * CHUNK :], values[first + chunk, kv_head]
            for key in range(0, whole, UNROLL):
                _add_products(out, p[key : key + UNROLL], block[key : key + UNROLL])
            for key in range(whole, used):
                for d in range(head_dim):
                    out[d] += p[key] * block[key, d]


@compiled
def _add_products(sums, p, vectors):
    """sums += p @ vectors, UNROLL terms, one after another."""
    p0, p1, p2, p3, p4, p5, p6, p7 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]
    v0, v1, v2, v3 = vectors[0], vectors[1], vectors[2], vectors[3]
    v4, v5, v6, v7 = vectors[4], vectors[5], vectors[6], vectors[7]
    for i in range(len(sums)):
        total = sums[i]
        total += p0 * v0[i]
        total += p1 * v1[i]
        total += p2 * v2[i]
        total += p3 * v3[i]
        total += p4 * v4[i]
        total += p5 * v5[i]
        total += p6 * v6[i]
        total += p7 * v7[i]
        sums[i] = total


@compiled
def _exponentials(scores, num_keys):
    """exp(score - highest) in place; returns their sum."""
    highest = scores[0]
    for i in range(num_keys):
        highest = max(highest, scores[i])
    for i in range(num_keys):
        scores[i] = exp(scores[i] - highest)
    total = _f32(0)
    for i in range(num_keys):
        total += scores[i]
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
