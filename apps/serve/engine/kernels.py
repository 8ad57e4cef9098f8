"""What a CPU does between two matrix products, compiled by numba: norms, rotation and attention.

Every number depends on its own row and on nothing else in the batch, to the last bit: each row is
computed alone, and each sum is taken in one order. LLVM may fuse a product and a sum ("contract")
but not reorder sums, so speed comes from sums side by side: LANES partial sums of a norm, the
scores of CHUNK keys, the D numbers of an output.

Shapes: R rows, H query heads, K key heads, D head size, S slots, C key chunks, N width.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

CHUNK = 32
"""Keys of a chunk; they are stored transposed, [D, CHUNK], so that scores come side by side."""
LANES = 8
UNROLL = 8
"""Terms added in one pass over a sum's vector; divides D and CHUNK."""

_f32 = np.float32


def _cached(compiler: Callable[..., Any], *args: Any, **settings: Any) -> Callable[..., Any]:
    """A decorator: compiled code is kept on disk, if any folder that numba tries can be written."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return compiler(*args, **settings, cache=True)(function)
        except RuntimeError:  # a read-only installation without a home; NUMBA_CACHE_DIR mends it
            return compiler(*args, **settings)(function)

    return decorate


compiled = _cached(njit, fastmath={"contract"}, nogil=True, error_model="numpy")
"""Python that becomes machine code at its first call, and is kept for the next process."""


@intrinsic
def _bits_as_float(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _floats_at(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def _ints_at(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(types.int64), generate


@intrinsic
def _take_next(typing_context, counter):
    """counter++, in one step for all threads."""

    def generate(context, builder, signature, arguments):
        pointer = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    return types.int64(types.voidptr), generate


@compiled
def rms_norm(x_RN, weight_N, eps, out_RN):
    """out = x / sqrt(mean(x^2) + eps) * weight"""
    partial = np.empty(LANES, _f32)
    for row in range(len(x_RN)):
        _rms_norm_row(x_RN[row], weight_N, eps, partial, out_RN[row])


@compiled
def _rms_norm_row(x_N, weight_N, eps, partial, out_N):
    width = len(x_N)
    whole = width // LANES * LANES
    partial[:] = _f32(0)
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
def rotate(x_D, cos, sin, scale):
    """RoPE in place, halves of a head against each other as Hugging Face lays them out."""
    half = len(x_D) // 2
    for i in range(half):
        a, b = x_D[i] * scale, x_D[half + i] * scale
        x_D[i] = a * cos[i] - b * sin[i]
        x_D[half + i] = b * cos[i] + a * sin[i]


@compiled
def _write_row(qkv, num_heads, position, cos, sin, scale, keys_KDC, values_KCD):
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
        if column % UNROLL == 0:  # what an older request left here is multiplied by 0: no NaN
            values_KCD[head, column : column + UNROLL] = _f32(0)
        for d in range(head_dim):
            values_KCD[head, column, d] = qkv[at + d]


@compiled
def write(qkv_RN, num_heads, firsts, positions, cos, sin, scale, keys, values):
    """Rotate queries and keys in place; put keys and values into the cache.

    firsts [R] is the first chunk of each row's slot; keys [chunks, K, D, CHUNK], values
    [chunks, K, CHUNK, D]; cos and sin [position, D / 2].
    """
    for row in range(len(qkv_RN)):
        position = positions[row]
        chunk = firsts[row] + position // CHUNK
        _write_row(
            qkv_RN[row], num_heads, position, cos[position], sin[position], scale,
            keys[chunk], values[chunk],
        )  # fmt: skip


@compiled
def _attend_row(qkv_N, num_heads, first, num_keys, keys, values, scores_HT, out_N):
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
    padded = (num_keys + UNROLL - 1) // UNROLL * UNROLL
    for head in range(num_heads):
        total = _exponentials(scores_HT[head], num_keys, padded)
        for key in range(num_keys):
            scores_HT[head, key] /= total
    out_N[:] = _f32(0)
    for chunk in range(num_chunks):
        for head in range(num_heads):
            out = out_N[head * head_dim : (head + 1) * head_dim]
            kv_head = head // group
            for key in range(chunk * CHUNK, min((chunk + 1) * CHUNK, padded), UNROLL):
                column = key % CHUNK
                block = values[first + chunk, kv_head, column : column + UNROLL]
                _add_products(out, scores_HT[head, key : key + UNROLL], block)


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
def _exponentials(scores, num_keys, padded):
    """exp(score - highest) in place, 0 up to `padded`; returns their sum."""
    highest = scores[0]
    for i in range(num_keys):
        highest = max(highest, scores[i])
    for i in range(num_keys):
        scores[i] = exp(scores[i] - highest)
    for i in range(num_keys, padded):
        scores[i] = _f32(0)
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
    return p * _bits_as_float((np.int32(n) + np.int32(127)) << np.int32(23))


@_cached(cfunc, types.void(types.voidptr))
def attend(task):
    """Causal attention of rows after `write`: takes rows from `task` until there are none left.

    Runs in any number of threads at once. `task` is an int64 array: next row, rows, query heads,
    key heads, head size, chunks, most keys of a row, then the addresses of qkv [R, (H + 2 K) * D],
    firsts [R], positions [R], keys, values and the output [R, H * D].
    """
    numbers = carray(task, (13,), np.int64)
    rows, heads, kv_heads, size, chunks, longest = numbers[1:7]
    qkv_RN = carray(_floats_at(numbers[7]), (rows, (heads + 2 * kv_heads) * size))
    firsts, positions = carray(_ints_at(numbers[8]), rows), carray(_ints_at(numbers[9]), rows)
    keys = carray(_floats_at(numbers[10]), (chunks, kv_heads, size, CHUNK))
    values = carray(_floats_at(numbers[11]), (chunks, kv_heads, CHUNK, size))
    out_RN = carray(_floats_at(numbers[12]), (rows, heads * size))
    scores = np.empty((heads, (longest + CHUNK - 1) // CHUNK * CHUNK), _f32)
    row = _take_next(task)
    while row < rows:
        _attend_row(
            qkv_RN[row], heads, firsts[row], positions[row] + 1, keys, values, scores, out_RN[row]
        )
        row = _take_next(task)
