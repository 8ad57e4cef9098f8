"""Products of bfloat16 numbers by the instructions that CPUs have for them, summed in float32.

    TILES   AMX (Intel since 2023): 16 x 32 times 32 x 16 numbers in one instruction
    DOTS    AVX512_BF16 (AMD Zen 4, Intel since 2020): 16 sums of two products each
    WIDE    every other CPU: weights become float32 as they are read (intrinsics.add_tile)

Two terms that follow each other lie side by side in a panel, [depth / 2, COLUMNS, 2], as both
instructions want them. Every sum is taken in one order whatever the rows beside it.
"""

import ctypes
import platform
from typing import Any

import torch
from llvmlite import binding, ir
from numba import types

from apps.serve.engine.cpu.intrinsics import COLUMNS, cpu_features, intrinsic, padded, spread

binding.initialize_native_asmparser()

FLOATS, WIDE, DOTS, TILES = range(4)
"""How a matrix is multiplied; FLOATS is one of float32."""

TERMS = 32
"""Terms of one step of TILES; depths are filled up with zeros to a multiple of it."""
TILE_ROWS = 16
BLOCK_ROWS = 2 * TILE_ROWS
"""Most rows of `multiply_tiles`: two tiles of rows and two panels fill the eight registers."""
DOT_ROWS = 8
"""Most rows of `add_dots`: their sums hide each other's latency, and share what is loaded."""

_PANEL_STEP = TERMS * COLUMNS * 2
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_TILEDATA = 158, 0x1023, 18

_float, _int64, _int32 = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_sums, _pairs = ir.VectorType(_float, COLUMNS), ir.VectorType(_int32, COLUMNS)


def best_way() -> int:
    """The fastest of the ways that the CPU, for which numba compiles, and its kernel allow.

    Linux saves the tile registers, 8 KB a thread, only of processes that ask for it (arch_prctl(2),
    Documentation/arch/x86/xstate.rst).
    """
    if _has_tiles() and not ctypes.CDLL(None).syscall(
        _ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_TILEDATA
    ):
        return TILES
    return DOTS if _has_dots() else WIDE


def _has_tiles() -> bool:
    return platform.system() == "Linux" and "amx-bf16" in cpu_features()


def _has_dots() -> bool:
    return "avx512bf16" in cpu_features()


def pack_pairs(weight_NK: torch.Tensor) -> torch.Tensor:
    """[panels, K / 2, COLUMNS, 2] of the transposed matrix, an even number of panels, zeros where
    the matrix ends."""
    columns, depth = weight_NK.shape
    whole = weight_NK.new_zeros(padded(columns), padded_depth(depth))
    whole[:columns, :depth] = weight_NK
    pairs = whole.view(-1, COLUMNS, whole.shape[1] // 2, 2)
    return pairs.transpose(1, 2).contiguous()


def padded_depth(depth: int) -> int:
    return -(-depth // TERMS) * TERMS


@intrinsic
def add_dots(typing_context, x, x_width, panel, pairs, sums, sums_width, rows):
    """sums [rows, COLUMNS] += x [rows, 2 pairs] @ panel, for 1 to DOT_ROWS rows.

    x, panel and sums are addresses, the widths are distances of rows in bytes.
    """

    def generate(context, builder, signature, arguments):
        if not _has_dots():  # nor would its assembler know the instruction
            return context.get_dummy_value()
        x, x_width, panel, pairs, sums, sums_width, rows = arguments
        done = builder.append_basic_block("dots.done")
        cases = builder.switch(rows, done)
        for count in range(1, DOT_ROWS + 1):
            cases.add_case(_int64(count), builder.append_basic_block("dots"))
            builder.position_at_end(cases.cases[-1][1])
            _dots(builder, x, x_width, panel, pairs, sums, sums_width, count)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


def _dots(builder, x, x_width, panel, pairs, sums, sums_width, count: int) -> None:
    before, loop = builder.block, builder.append_basic_block("pairs")
    after = builder.append_basic_block("stored")
    x_rows, sum_rows = (
        [builder.add(start, builder.mul(width, _int64(row))) for row in range(count)]
        for start, width in ((x, x_width), (sums, sums_width))
    )
    sum_rows = [builder.inttoptr(row, _sums.as_pointer()) for row in sum_rows]
    stored = [builder.load(row, align=4) for row in sum_rows]
    weights_start = builder.inttoptr(panel, _pairs.as_pointer())
    dot_type = ir.FunctionType(_sums, [_sums, _pairs, _pairs])
    dot = ir.InlineAsm(dot_type, "vdpbf16ps $3, $2, $0", "=v,0,v,v")
    builder.branch(loop)
    builder.position_at_end(loop)
    pair = builder.phi(_int64)
    pair.add_incoming(_int64(0), before)
    totals = [builder.phi(_sums) for _ in x_rows]
    weights = builder.load(builder.gep(weights_start, [pair]), align=4)
    for total, x_row, start, sum_row in zip(totals, x_rows, stored, sum_rows, strict=True):
        numbers = builder.inttoptr(x_row, _int32.as_pointer())
        two_terms = spread(builder, builder.load(builder.gep(numbers, [pair]), align=4))
        more = builder.call(dot, [total, weights, two_terms])
        total.add_incoming(start, before)
        total.add_incoming(more, loop)
        with builder.goto_block(after):
            builder.store(more, sum_row, align=4)
    following = builder.add(pair, _int64(1))
    pair.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
    builder.position_at_end(after)


@intrinsic
def multiply_tiles(typing_context, x, x_width, panel, steps, out, out_width, adds, rows):
    """out [rows, 2 COLUMNS] (+)= x [rows, TERMS steps] @ two panels that follow each other.

    x, panel and out are addresses, the widths are distances of rows in bytes. 1 to BLOCK_ROWS rows;
    whole tiles are read and written, TILE_ROWS at a time.
    """

    def generate(context, builder, signature, arguments):
        if not _has_tiles():
            return context.get_dummy_value()
        x, x_width, panel, steps, out, out_width, adds, rows = arguments
        second = builder.add(panel, builder.mul(steps, _int64(_PANEL_STEP)))
        moved = [x, _below(builder, x, x_width), panel, second, steps]
        fixed = [x_width, _int64(4 * COLUMNS), out, _below(builder, out, out_width), out_width]
        fixed.append(_tile_config(builder.module))
        done = builder.append_basic_block("tiles.done")
        is_high = builder.zext(builder.icmp_signed(">", rows, _int64(TILE_ROWS)), _int64)
        cases = builder.switch(builder.add(builder.mul(is_high, _int64(2)), adds), done)
        for high in (1, 2):
            for does_add in (0, 1):
                block = builder.append_basic_block("tiles")
                cases.add_case(_int64(2 * (high - 1) + does_add), block)
                builder.position_at_end(block)
                _run_tiles(builder, moved, fixed, high=high, adds=bool(does_add))
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


def _below(builder: ir.IRBuilder, start: Any, width: Any) -> Any:
    """The next tile of rows."""
    return builder.add(start, builder.mul(width, _int64(TILE_ROWS)))


def _run_tiles(
    builder: ir.IRBuilder, moved: list[Any], fixed: list[Any], *, high: int, adds: bool
) -> None:
    """In assembly, because no compiler here hands out tile registers.

    Of these 0 to 3 hold sums, 4 and 5 rows of x, 6 and 7 the panels.
    """
    x_rows, panels, steps = ["$0", "$1"][:high], ["$2", "$3"], "$4"
    x_width, line, out_rows, out_width, config = "$10", "$11", ["$12", "$13"], "$14", "$15"
    places = [(row, column, 2 * row + column) for row in range(high) for column in range(2)]
    outs = [
        (f"{4 * COLUMNS * column}({out_rows[row]},{out_width},1)", f"%tmm{total}")
        for row, column, total in places
    ]
    lines = [
        f"ldtilecfg ({config})",
        *(f"tileloadd {at}, {total}" if adds else f"tilezero {total}" for at, total in outs),
        "1:",
        *(f"tileloadd ({at},{x_width},1), %tmm{4 + row}" for row, at in enumerate(x_rows)),
        *(f"tileloadd ({at},{line},1), %tmm{6 + column}" for column, at in enumerate(panels)),
        *(f"tdpbf16ps %tmm{6 + column}, %tmm{4 + row}, %tmm{to}" for row, column, to in places),
        *(f"addq $${2 * TERMS}, {at}" for at in x_rows),
        *(f"addq $${_PANEL_STEP}, {at}" for at in panels),
        f"decq {steps}",
        "jnz 1b",
        *(f"tilestored {total}, {at}" for at, total in outs),
        "tilerelease",
    ]
    kind = ir.FunctionType(
        ir.LiteralStructType([_int64] * len(moved)), [value.type for value in moved + fixed]
    )
    constraints = ",".join(
        ["=&r"] * len(moved) + [str(i) for i in range(len(moved))] + ["r"] * len(fixed)
    )
    code = ir.InlineAsm(kind, "\n".join(lines), f"{constraints},~{{memory}},~{{flags}}", True)
    builder.call(code, moved + fixed)


def _tile_config(module: ir.Module) -> Any:
    """Palette 1, eight tiles of 16 rows of 64 bytes (Intel's manual, LDTILECFG)."""
    name = "cria.tile_config"
    if name in module.globals:
        return module.globals[name]
    config = bytearray(64)
    config[0] = 1
    config[16:32] = bytes([64, 0] * 8)
    config[48:56] = bytes([TILE_ROWS] * 8)
    kind = ir.ArrayType(ir.IntType(8), 64)
    variable: Any = ir.GlobalVariable(module, kind, name)
    variable.linkage, variable.global_constant = "internal", True
    variable.initializer = ir.Constant(kind, config)
    return variable
