"""Machine instructions that numba has no name for: addresses, atomic words, one tile of a product.

The tile holds ROWS x COLUMNS sums in vector registers while it walks along the depth. Every sum is
taken term by term from the first to the last, whatever the number of rows, so a row's numbers do
not depend on the rows beside it.
"""

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import torch
from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils, config
from numba.core.registry import cpu_target

from apps.common.files.model_folder import cache_root
from apps.serve.engine.llama import kv_cache

ROWS = 6
"""Most rows of a tile: with AVX2, 6 x 16 sums and what feeds them fill the 16 registers."""
COLUMNS = 16
"""Columns of a panel of weights; a panel lies in memory as [depth, COLUMNS]."""

_float, _int64, _int32, _int16 = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(16)
_FUSED = ("contract",)
_PREFETCH_TERMS = 64
"""Panels stream from memory; one looks this many terms (4 KB) ahead."""


def cpu_features() -> frozenset[str]:
    """What the x86 CPU has for which numba compiles, by LLVM's names, such as avx512bf16."""
    triple, _, features = _target()
    names = features.split(",") if triple.startswith("x86_64") else []
    return frozenset(name[1:] for name in names if name.startswith("+"))


def _target() -> tuple[str, str, str]:
    """The CPU: its kind of machine, its name, its features."""
    context: Any = cpu_target.target_context
    return context.codegen().magic_tuple()


def machine_code_folder(root: Path, sources: Path) -> Path | None:
    """Where machine code of the files in `sources` is kept, for this CPU alone; None: nowhere.

    Numba looks at the time of a function's own file only, not at those of the functions that became
    a part of it; and two machines that share a home must not write the same files.
    """
    files = [*sorted(sources.glob("*.py")), Path(kv_cache.__file__)]
    about = repr((numba.__version__, *_target())).encode()
    version = hashlib.sha256(about + b"".join(file.read_bytes() for file in files)).hexdigest()
    folder = root / "kernels" / version[:16]
    if not root.is_absolute():  # somebody without a home
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _keep_machine_code() -> bool:
    settings: Any = config
    folder = machine_code_folder(Path(settings.CACHE_DIR or cache_root()), Path(__file__).parent)
    if folder is not None:
        settings.CACHE_DIR = str(folder)
    return folder is not None


_IS_KEPT = _keep_machine_code()


def cached(compiler: Callable[..., Any], *args: Any, **settings: Any) -> Callable[..., Any]:
    """A decorator: compiled code is kept on disk, in NUMBA_CACHE_DIR or the user's own cache."""

    def decorate(function: Callable[..., Any]) -> Any:
        return compiler(*args, **settings, cache=_IS_KEPT)(function)

    return decorate


compiled = cached(njit, fastmath=set(_FUSED), nogil=True, error_model="numpy")
"""Python that becomes machine code at its first call, and is kept for the next process."""


def intrinsic(define: Callable[..., Any]) -> Callable[..., Any]:
    """As numba's own; calls leave out the first parameter of the definition."""
    return extending.intrinsic(define)


@intrinsic
def bits_as_float(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], _float)

    return types.float32(types.int32), generate


@intrinsic
def floats_at(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], _float.as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def fetch_add(typing_context, address, amount):
    """The int64 at an address, and `amount` added to it, in one step for all threads."""

    def generate(context, builder, signature, arguments):
        word = builder.inttoptr(arguments[0], _int64.as_pointer())
        return builder.atomic_rmw("add", word, arguments[1], "acq_rel")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def load(typing_context, address):
    def generate(context, builder, signature, arguments):
        word = builder.inttoptr(arguments[0], _int64.as_pointer())
        return builder.load_atomic(word, "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def store(typing_context, address, value):
    def generate(context, builder, signature, arguments):
        word = builder.inttoptr(arguments[0], _int64.as_pointer())
        builder.store_atomic(arguments[1], word, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def pause(typing_context):
    """Tells the core that this thread only waits."""

    def generate(context, builder, signature, arguments):
        if platform.machine().lower() in ("x86_64", "amd64"):
            hint = ir.FunctionType(ir.VoidType(), [])
            builder.call(
                cgutils.get_or_insert_function(builder.module, hint, "llvm.x86.sse2.pause"), []
            )
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def add_tile(typing_context, x, x_width, panel, is_half, depth, sums, sums_width, rows):
    """sums [rows, COLUMNS] += x [rows, depth] @ panel [depth, COLUMNS], for 1 to ROWS rows.

    The first of each is an address, the widths are the distances of rows, in numbers. The panel is
    bfloat16 where `is_half`, everything else float32.
    """

    def generate(context, builder, signature, arguments):
        x, x_width, panel, is_half, depth, sums, sums_width, rows = arguments
        done = builder.append_basic_block("tile.done")
        case = builder.add(builder.mul(rows, _int64(2)), is_half)
        cases = builder.switch(case, done)
        for half in (0, 1):
            for count in range(1, ROWS + 1):
                cases.add_case(_int64(2 * count + half), builder.append_basic_block("tile"))
                builder.position_at_end(cases.cases[-1][1])
                x_rows = [_row(builder, x, x_width, row, _float) for row in range(count)]
                sum_rows = [_row(builder, sums, sums_width, row, _vector()) for row in range(count)]
                _tile(builder, x_rows, panel, bool(half), depth, sum_rows)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


@intrinsic
def copy_columns(typing_context, out, numbers):
    """COLUMNS numbers from one address to another."""

    def generate(context, builder, signature, arguments):
        out, numbers = (_row(builder, at, _int64(0), 0, _vector()) for at in arguments)
        builder.store(builder.load(numbers, align=4), out, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add_columns(typing_context, out, first, second):
    """out = first + second, COLUMNS numbers at three addresses."""

    def generate(context, builder, signature, arguments):
        out, first, second = (_row(builder, at, _int64(0), 0, _vector()) for at in arguments)
        total = builder.fadd(builder.load(first, align=4), builder.load(second, align=4))
        builder.store(total, out, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@intrinsic
def narrow_columns(typing_context, out, numbers):
    """COLUMNS numbers at an address become bfloat16 at another: the nearest, or the even one of two
    that are as near."""

    def generate(context, builder, signature, arguments):
        wide, half = _vector(_int32), _vector(_int16)

        def each(value: int) -> ir.Constant:
            return ir.Constant(wide, [value] * COLUMNS)

        out = builder.inttoptr(arguments[0], half.as_pointer())
        numbers = builder.inttoptr(arguments[1], wide.as_pointer())
        bits = builder.load(numbers, align=4)
        odd = builder.and_(builder.lshr(bits, each(16)), each(1))
        rounded = builder.lshr(builder.add(builder.add(bits, odd), each(0x7FFF)), each(16))
        number = builder.bitcast(bits, _vector())
        is_none = builder.fcmp_unordered("uno", number, number)
        builder.store(
            builder.trunc(builder.select(is_none, each(0x7FC0), rounded), half), out, align=2
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _vector(kind: ir.Type = _float) -> ir.VectorType:
    return ir.VectorType(kind, COLUMNS)


def _row(builder: ir.IRBuilder, start: ir.Value, width: ir.Value, row: int, kind: ir.Type) -> Any:
    address = builder.add(start, builder.mul(width, _int64(4 * row)))
    return builder.inttoptr(address, kind.as_pointer())


def _tile(builder, x_rows, panel, is_half, depth, sum_rows) -> None:
    before = builder.block
    loop, after = builder.append_basic_block("terms"), builder.append_basic_block("stored")
    stored = [builder.load(row, align=4) for row in sum_rows]
    builder.branch(loop)
    builder.position_at_end(loop)
    term = builder.phi(_int64)
    term.add_incoming(_int64(0), before)
    totals = [builder.phi(_vector()) for _ in x_rows]
    weights = _weights(builder, panel, term, is_half)
    for total, x_row, start, sum_row in zip(totals, x_rows, stored, sum_rows, strict=True):
        number = builder.load(builder.gep(x_row, [term]))
        product = builder.fmul(spread(builder, number), weights, flags=_FUSED)
        more = builder.fadd(total, product, flags=_FUSED)
        total.add_incoming(start, before)
        total.add_incoming(more, loop)
        with builder.goto_block(after):
            builder.store(more, sum_row, align=4)
    following = builder.add(term, _int64(1))
    term.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    builder.position_at_end(after)


def _weights(builder, panel, term, is_half) -> ir.Value:
    kind = _int16 if is_half else _float
    rows = builder.inttoptr(panel, _vector(kind).as_pointer())
    _prefetch(builder, builder.gep(rows, [builder.add(term, _int64(_PREFETCH_TERMS))]))
    weights = builder.load(builder.gep(rows, [term]), align=2)
    if not is_half:
        return weights
    wide = builder.zext(weights, _vector(_int32))
    return builder.bitcast(
        builder.shl(wide, ir.Constant(_vector(_int32), [16] * COLUMNS)), _vector()
    )


def _prefetch(builder, pointer) -> None:
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _int32, _int32, _int32])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [builder.bitcast(pointer, byte), _int32(0), _int32(3), _int32(1)])


def spread(builder: ir.IRBuilder, number: Any) -> ir.Value:
    """One number in every column."""
    nothing = ir.Constant(_vector(number.type), ir.Undefined)
    first = builder.insert_element(nothing, number, _int32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_vector(_int32), [0] * COLUMNS))


def padded(columns: int) -> int:
    """Up to an even number of panels."""
    return -(-columns // (2 * COLUMNS)) * 2 * COLUMNS


def pack(weight_NK: torch.Tensor) -> torch.Tensor:
    """[panels, K, COLUMNS]: panels of the transposed matrix, zeros where it ends."""
    columns, depth = weight_NK.shape
    whole = weight_NK.new_zeros(padded(columns), depth)
    whole[:columns] = weight_NK
    return whole.view(-1, COLUMNS, depth).transpose(1, 2).contiguous()
