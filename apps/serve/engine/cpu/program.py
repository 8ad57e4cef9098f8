"""A forward pass as a list of phases, shared out in tasks among the threads that happen to run.

A phase's tasks may be done by any thread in any order; the thread that ends the last one opens the
next phase. So nobody waits for a thread that is not running: beside a busy neighbour one thread
does it all, and at worst waits for the one task that another has begun.

`board` holds two words on cache lines of their own. The ticket: phase, number of its tasks, next
task, in fields of 24, 20 and 20 bits, so that one addition claims a task of a phase that is open.
Then how many of the tasks are done.
"""

import numpy as np
from numba import types
from numba.np.numpy_support import carray

from apps.serve.engine.cpu import kernels
from apps.serve.engine.cpu.intrinsics import (  # fmt: skip
    COLUMNS,
    compiled,
    fetch_add,
    floats_at,
    load,
    pause,
    store,
)
from apps.serve.engine.llama.kv_cache import CHUNK

NORM, PRODUCT, GATED, WRITE, ATTEND = range(5)

PHASE = np.dtype([(name, np.int64) for name in (
    "kind", "row_block", "groups", "is_picked", "x", "x_width", "depth", "panels", "weight",
    "is_half", "bias", "adds", "out", "out_width", "heads", "kv_heads", "size", "chunks",
    "keys", "values", "cos", "sin", "q_norm", "k_norm",
)] + [("eps", np.float32), ("scale", np.float32)])  # fmt: skip
"""One phase; x, weight, bias, out, keys, values, cos, sin and norms are addresses."""

NUM_ROWS, POSITIONS, FIRSTS, PICKED = range(4)
"""Rows of `batch`, int64: [rows, picked rows], then of each row its position and the first chunk of
its slot, then the rows whose logits are wanted."""

DONE = 8
_FIELD = 20
_MASK = (1 << _FIELD) - 1
_LOOKS_BEFORE_YIELD = 512

_yield_core = types.ExternalFunction("sched_yield", types.int32())


@compiled
def start(board, phases, batch):
    _open(board.ctypes.data, phases, batch, 0)


@compiled
def work(board, phases, batch, scores, patience):
    """Do tasks until the pass is over, or, with patience, until nothing was there for so long."""
    ticket, looks = board.ctypes.data, 0
    while True:
        word = load(ticket)
        if word & _MASK >= (word >> _FIELD) & _MASK:
            if patience == 0 and word >> 2 * _FIELD == len(phases):
                return
            looks += 1
            if 0 < patience < looks:
                return
            if looks % _LOOKS_BEFORE_YIELD == 0:
                _yield_core()
            pause()
            continue
        word = fetch_add(ticket, 1)
        task, num_tasks, index = word & _MASK, (word >> _FIELD) & _MASK, word >> 2 * _FIELD
        if task >= num_tasks:
            continue
        looks = 0
        _perform(phases[index], task, batch, scores)
        if fetch_add(ticket + 8 * DONE, 1) + 1 == num_tasks:
            _open(ticket, phases, batch, index + 1)


@compiled
def _open(ticket, phases, batch, index):
    num_tasks = 0
    while index < len(phases):
        rows = batch[NUM_ROWS, phases[index].is_picked]
        num_tasks = (rows + phases[index].row_block - 1) // phases[index].row_block
        num_tasks *= phases[index].groups
        if num_tasks:
            break
        index += 1
    store(ticket + 8 * DONE, 0)
    store(ticket, index << 2 * _FIELD | num_tasks << _FIELD)


@compiled
def _perform(phase, task, batch, scores):
    block, group = task // phase.groups, task % phase.groups
    first = block * phase.row_block
    last = min(first + phase.row_block, batch[NUM_ROWS, phase.is_picked])
    if phase.kind == PRODUCT or phase.kind == GATED:
        _multiply(phase, first, last - first, group)
    elif phase.kind == NORM:
        for row in range(first, last):
            x = phase.x + 4 * phase.x_width * (batch[PICKED, row] if phase.is_picked else row)
            out = _floats(phase.out + 4 * phase.out_width * row, phase.depth)
            weight = _floats(phase.weight, phase.depth)
            kernels.norm_row(_floats(x, phase.depth), weight, phase.eps, out)
    elif phase.kind == WRITE:
        for row in range(first, last):
            _write(phase, row, batch)
    else:
        for row in range(first, last):
            _attend(phase, row, batch, scores)


@compiled
def _floats(address, size):
    return carray(floats_at(address), (size,))


@compiled
def _multiply(phase, first, num_rows, group):
    """out (+)= bias + x W, or silu(gate) * up where panels of both alternate."""
    sums = np.empty((2, num_rows, COLUMNS), np.float32)
    x = phase.x + 4 * first * phase.x_width
    is_gated = phase.kind == GATED
    step = 2 if is_gated else 1
    num_bytes = phase.depth * COLUMNS * (2 if phase.is_half else 4)
    pairs = phase.panels // step
    for pair in range(pairs * group // phase.groups, pairs * (group + 1) // phase.groups):
        for part in range(step):
            panel = pair * step + part
            kernels.product(
                x, phase.x_width, phase.depth, num_rows, phase.weight + panel * num_bytes,
                phase.is_half, _floats(phase.bias + 4 * panel * COLUMNS, COLUMNS), sums[part],
            )  # fmt: skip
        for row in range(num_rows):
            at = phase.out + 4 * ((first + row) * phase.out_width + pair * COLUMNS)
            out = _floats(at, COLUMNS)
            if is_gated:
                kernels.gate(sums[0, row], sums[1, row], out)
            elif phase.adds:
                for i in range(COLUMNS):
                    out[i] += sums[0, row, i]
            else:
                for i in range(COLUMNS):
                    out[i] = sums[0, row, i]


@compiled
def _cache(phase):
    chunks, heads, size = phase.chunks, phase.kv_heads, phase.size
    keys = carray(floats_at(phase.keys), (chunks, heads, size, CHUNK))
    return keys, carray(floats_at(phase.values), (chunks, heads, CHUNK, size))


@compiled
def _write(phase, row, batch):
    heads, size, position = phase.heads + phase.kv_heads, phase.size, batch[POSITIONS, row]
    x = phase.x + 4 * row * phase.x_width
    if phase.q_norm:
        for head in range(heads):
            weight = _floats(phase.q_norm if head < phase.heads else phase.k_norm, size)
            part = _floats(x + 4 * head * size, size)
            kernels.norm_row(part, weight, phase.eps, part)
    keys, values = _cache(phase)
    chunk = batch[FIRSTS, row] + position // CHUNK
    half = size // 2
    kernels.write_row(
        _floats(x, (heads + phase.kv_heads) * size), phase.heads, position,
        _floats(phase.cos + 4 * position * half, half),
        _floats(phase.sin + 4 * position * half, half),
        phase.scale, keys[chunk], values[chunk],
    )  # fmt: skip


@compiled
def _attend(phase, row, batch, scores):
    keys, values = _cache(phase)
    kernels.attend_row(
        _floats(phase.x + 4 * row * phase.x_width, phase.heads * phase.size), phase.heads,
        batch[FIRSTS, row], batch[POSITIONS, row] + 1, keys, values, scores,
        _floats(phase.out + 4 * row * phase.out_width, phase.heads * phase.size),
    )  # fmt: skip
