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
from apps.serve.engine.cpu.bfloat16 import (
    BLOCK_ROWS,
    DOTS,
    FLOATS,
    TERMS,
    TILES,
    multiply_tiles,
)
from apps.serve.engine.cpu.intrinsics import (  # fmt: skip
    COLUMNS,
    add_columns,
    compiled,
    copy_columns,
    fetch_add,
    floats_at,
    load,
    narrow_columns,
    pause,
    store,
)
from apps.serve.engine.llama.kv_cache import CHUNK

NORM, PRODUCT, GATED, WRITE, ATTEND = range(5)

PHASE = np.dtype([(name, np.int64) for name in (
    "kind", "row_block", "groups", "is_picked", "x", "x_width", "depth", "panels", "weight",
    "way", "bias", "adds", "out", "out_width", "is_narrow", "heads", "kv_heads", "size", "chunks",
    "keys", "values", "cos", "sin", "q_norm", "k_norm",
)] + [("eps", np.float32), ("scale", np.float32)])  # fmt: skip
"""One phase; x, weight, bias, out, keys, values, cos, sin and norms are addresses.

`way` is one of bfloat16.py; with DOTS and TILES x is bfloat16, as the out of a phase that
`is_narrow`. All else is float32."""

NUM_ROWS, POSITIONS, FIRSTS, PICKED = range(4)
"""Rows of `batch`, int64: [rows, picked rows], then of each row its position and the first chunk of
its slot, then the rows whose logits are wanted."""

DONE = 8
_FIELD = 20
_MASK = (1 << _FIELD) - 1
_LOOKS_BEFORE_YIELD = 512
ROW_BLOCK = BLOCK_ROWS
"""Rows of a product that are computed together; their inputs stay in a core's cache."""

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
        _multiply(phase, first, last, group)
    elif phase.kind == NORM:
        for row in range(first, last):
            x = phase.x + 4 * phase.x_width * (batch[PICKED, row] if phase.is_picked else row)
            weight = _floats(phase.weight, phase.depth)
            out = np.zeros(phase.depth + COLUMNS, np.float32)
            kernels.norm_row(_floats(x, phase.depth), weight, phase.eps, out[: phase.depth])
            _put(phase, row, 0, out.ctypes.data, phase.depth)
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
def _put(phase, row, column, numbers, size):
    """Write `size` float32 numbers at an address into a row, as float32 or bfloat16.

    Whole vectors: what is behind them, up to a multiple of COLUMNS, comes along.
    """
    at = phase.out_width * row + column
    for i in range(0, size, COLUMNS):
        if phase.is_narrow:
            narrow_columns(phase.out + 2 * (at + i), numbers + 4 * i)
        else:
            copy_columns(phase.out + 4 * (at + i), numbers + 4 * i)


@compiled
def _multiply(phase, first, last, group):
    """out (+)= x W + bias, or silu(gate) * up where panels of both alternate.

    Pair by pair of panels, each with all the rows while it lies in a core's cache.
    """
    both = np.empty((ROW_BLOCK, 2, COLUMNS), np.float32)
    gated = np.empty(COLUMNS, np.float32)
    pairs = phase.panels // 2
    for pair in range(pairs * group // phase.groups, pairs * (group + 1) // phase.groups):
        for start in range(first, last, ROW_BLOCK):
            num_rows = min(ROW_BLOCK, last - start)
            if phase.kind == PRODUCT:
                out = phase.out + 4 * (start * phase.out_width + 2 * pair * COLUMNS)
                _multiply_pair(phase, start, num_rows, pair, out, phase.out_width)
                continue
            _multiply_pair(phase, start, num_rows, pair, both.ctypes.data, 2 * COLUMNS)
            for row in range(num_rows):
                kernels.gate(both[row, 0], both[row, 1], gated)
                _put(phase, start + row, pair * COLUMNS, gated.ctypes.data, COLUMNS)


@compiled
def _multiply_pair(phase, first, num_rows, pair, out, width):
    """out [num_rows, 2 COLUMNS] (+)= x @ two panels that follow each other + bias."""
    num_bytes = phase.depth * COLUMNS * (4 if phase.way == FLOATS else 2)
    weight = phase.weight + 2 * pair * num_bytes
    x = phase.x + (2 if phase.way == DOTS or phase.way == TILES else 4) * first * phase.x_width
    if phase.way == TILES:
        multiply_tiles(
            x, 2 * phase.x_width, weight, phase.depth // TERMS, out, 4 * width, phase.adds,
            num_rows,
        )  # fmt: skip
    else:
        for part in range(2):
            at = out + 4 * COLUMNS * part
            for row in range(0 if phase.adds else num_rows):
                _floats(at + 4 * row * width, COLUMNS)[:] = np.float32(0)
            kernels.add_product(
                x, phase.x_width, phase.depth, num_rows, weight + part * num_bytes, phase.way,
                at, width,
            )  # fmt: skip
    if phase.bias:
        for row in range(num_rows):
            for part in range(2):
                at = out + 4 * (row * width + part * COLUMNS)
                add_columns(at, at, phase.bias + 4 * COLUMNS * (2 * pair + part))


@compiled
def _write(phase, row, batch):
    heads, size, position = phase.heads + phase.kv_heads, phase.size, batch[POSITIONS, row]
    x = phase.x + 4 * row * phase.x_width
    if phase.q_norm:
        for head in range(heads):
            weight = _floats(phase.q_norm if head < phase.heads else phase.k_norm, size)
            part = _floats(x + 4 * head * size, size)
            kernels.norm_row(part, weight, phase.eps, part)
    chunk = batch[FIRSTS, row] + position // CHUNK
    chunks, half = phase.chunks, size // 2
    keys = carray(floats_at(phase.keys), (chunks, phase.kv_heads, CHUNK // COLUMNS, size, COLUMNS))
    panels = (size + COLUMNS - 1) // COLUMNS
    values = carray(floats_at(phase.values), (chunks, phase.kv_heads, panels, CHUNK, COLUMNS))
    kernels.write_row(
        _floats(x, (heads + phase.kv_heads) * size), phase.heads, position,
        _floats(phase.cos + 4 * position * half, half),
        _floats(phase.sin + 4 * position * half, half),
        phase.scale, keys[chunk], values[chunk],
    )  # fmt: skip


@compiled
def _attend(phase, row, batch, scores):
    width = phase.heads * phase.size
    out = np.empty(width + COLUMNS, np.float32)
    kernels.attend_row(
        phase, phase.x + 4 * row * phase.x_width, batch[FIRSTS, row], batch[POSITIONS, row] + 1,
        scores, out.ctypes.data,
    )  # fmt: skip
    _put(phase, row, 0, out.ctypes.data, width)
