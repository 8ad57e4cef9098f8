"""Products of bfloat16 numbers, by each instruction that this CPU has."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from apps.serve.engine.config import TorchConfig
from apps.serve.engine.cpu import bfloat16, intrinsics, llama, program
from apps.serve.engine.cpu.bfloat16 import DOTS, FLOATS, TILES, WIDE
from apps.serve.engine.cpu.llama import CompiledLlama, pack_linear
from apps.serve.engine.cpu.threads import Team
from apps.serve.engine.llama.kv_cache import Rows
from apps.serve.engine.llama.weights import Linear, is_stored_as_bfloat16
from apps.serve.engine.torch.engine import TorchEngine
from apps.serve.engine.torch.llama import Llama
from tests.serve.engine.llamas import rows_of

WAYS = {"wide": WIDE, "dots": DOTS, "tiles": TILES}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch) -> int:
    """Each way in turn as the one that this CPU is said to prefer."""
    best, can = bfloat16.best_way(), torch.cpu.get_capabilities()
    has = {"wide": True, "dots": can.get("avx512_bf16", False), "tiles": best == TILES}
    if not has[request.param]:
        pytest.skip(f"this CPU has no instruction for {request.param}")
    monkeypatch.setattr(llama, "best_way", lambda: WAYS[request.param])
    return WAYS[request.param]


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize(
    ("num_rows", "depth", "columns"),
    [(1, 32, 32), (2, 31, 17), (16, 64, 48), (17, 96, 33), (33, 160, 100), (300, 1100, 50)],
)
def test_a_product_of_whole_numbers_is_exact(way, num_rows, depth, columns, adds, has_bias) -> None:
    rng = torch.Generator().manual_seed(num_rows)
    x, weight = (
        torch.randint(-8, 9, shape, generator=rng).float()
        for shape in ((num_rows, depth), (columns, depth))
    )
    bias = torch.arange(columns).float() if has_bias else None
    packed = pack_linear(Linear(weight.bfloat16(), bias), way)
    is_narrow = way != WIDE
    buffer = torch.zeros(num_rows + 32, packed.depth, dtype=torch.bfloat16 if is_narrow else None)
    buffer[:num_rows, :depth] = x
    buffer[num_rows:] = torch.nan  # rows behind the last one may be read, and change nothing
    before = torch.ones(num_rows + 32, packed.width)
    out = before.clone()
    phase = {
        "kind": program.PRODUCT, "row_block": 256, "groups": 2, "x": buffer.data_ptr(),
        "x_width": packed.depth, "depth": packed.depth, "panels": len(packed.panels), "way": way,
        "weight": packed.panels.data_ptr(), "adds": adds, "out": out.data_ptr(),
        "out_width": packed.width, "bias": 0 if packed.bias is None else packed.bias.data_ptr(),
    }  # fmt: skip
    phases = np.zeros(1, program.PHASE)
    for name, value in phase.items():
        phases[name] = value
    batch = np.zeros((4, num_rows), np.int64)
    batch[program.NUM_ROWS, 0] = num_rows
    Team(phases, batch, (1, 1), num_threads=1).run()
    expected = x @ weight.T + (0 if bias is None else bias) + (1 if adds else 0)
    assert torch.equal(out[:num_rows, :columns], expected)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> str:
    """A model with biases, of which no size is a multiple of what an instruction takes."""
    folder = tmp_path_factory.mktemp("uneven")
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=60, num_attention_heads=5, num_key_value_heads=1, num_hidden_layers=2,
        intermediate_size=88, vocab_size=515, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.bfloat16().save_pretrained(folder)
    return str(folder)


def test_bfloat16_stays_close_to_float32(uneven, way) -> None:
    model = CompiledLlama(uneven, dtype=torch.bfloat16)
    reference = Llama(uneven, device="cpu", dtype=torch.float32)
    spans = (0, 0, 40), (2, 0, 70)
    ours = model.forward(rows_of(*spans), model.new_cache(3, 96))
    theirs = reference.forward(rows_of(*spans), reference.new_cache(3, 96))
    error = (ours - theirs).norm() / theirs.norm()
    assert error < (1e-5 if way == WIDE else 0.02)


def test_a_row_has_the_same_bits_in_any_company(uneven, way) -> None:
    """As part of a prompt, alone, in a batch, and on three threads."""
    model = CompiledLlama(uneven, dtype=torch.bfloat16)
    cache = model.new_cache(40, 96)
    whole = model.forward(rows_of((1, 0, 70)), cache).clone()
    one_by_one = model.new_cache(40, 96)
    steps = [model.forward(rows_of((1, i, 1)), one_by_one)[0].clone() for i in range(70)]
    assert torch.equal(torch.stack(steps), whole)
    crowd = CompiledLlama(uneven, dtype=torch.bfloat16, num_threads=3)
    crowded = crowd.new_cache(40, 96)
    others = [(slot, 0, 5) for slot in range(2, 36)]
    together = crowd.forward(rows_of(*others[:17], (1, 0, 70), *others[17:]), crowded)
    assert torch.equal(together[17 * 5 : 17 * 5 + 70], whole)
    crowded.close()


def test_a_row_without_a_number_breaks_no_other(uneven, way, tmp_path) -> None:
    tensors = load_file(f"{uneven}/model.safetensors")
    tensors["model.embed_tokens.weight"][514] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes(Path(uneven, "config.json").read_bytes())
    outputs = []
    for last in (5, 514):
        model = CompiledLlama(tmp_path, dtype=torch.bfloat16)
        rows = Rows(logit_rows=[0, 1, 2])
        for slot, token_id in enumerate((3, 4, last)):
            rows.add([token_id], 0, slot)
        logits = model.forward(rows, model.new_cache(3, 32))
        outputs.append(logits[:, :514].clone())
    assert torch.equal(outputs[0][:2], outputs[1][:2])
    assert not torch.isfinite(outputs[1][2]).any()


async def test_auto_keeps_bfloat16_where_the_folder_has_it(uneven, tiny_llama) -> None:
    assert is_stored_as_bfloat16(uneven) and not is_stored_as_bfloat16(tiny_llama)
    for folder, dtype in ((uneven, torch.bfloat16), (tiny_llama, torch.float32)):
        engine = TorchEngine(TorchConfig(path=folder))
        await engine.start()
        model = engine.model
        assert isinstance(model, CompiledLlama)
        assert model.head.panels.dtype == dtype
        assert model.way == (bfloat16.best_way() if dtype == torch.bfloat16 else FLOATS)
        await engine.close()


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (("x86_64-linux", "haswell", "+avx2,-avx512bf16"), WIDE),
        (("x86_64-linux", "znver4", "+avx2,+avx512bf16,-amx-bf16"), DOTS),
        (("aarch64-linux", "neoverse-v1", "+bf16,+avx512bf16"), WIDE),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_best_way_is_one_that_the_cpu_has(monkeypatch, features, expected) -> None:
    monkeypatch.setattr(intrinsics, "_target", lambda: features)
    assert bfloat16.best_way() == expected


def test_tiles_that_the_kernel_refuses_are_not_used(monkeypatch) -> None:
    target = "x86_64-linux", "sapphirerapids", "+avx512bf16,+amx-bf16"
    monkeypatch.setattr(intrinsics, "_target", lambda: target)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Mock(syscall=lambda *_: -1))
    assert bfloat16.best_way() == DOTS


def test_the_engine_runs_on_a_cpu_without_avx512(uneven, tmp_path) -> None:
    """Its compiler would end the process on an instruction that it does not know."""
    model = CompiledLlama(uneven, dtype=torch.float32)
    expected = model.forward(rows_of((0, 0, 40)), model.new_cache(1, 64))
    torch.save(expected, tmp_path / "expected.pt")
    features = "+avx2,+fma,+bmi,+bmi2,+f16c,+sse4.2,+popcnt,+lzcnt"
    environment = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
    script = f"""
import torch
from apps.serve.engine.cpu import bfloat16
from apps.serve.engine.cpu.llama import CompiledLlama
from tests.serve.engine.llamas import rows_of
assert bfloat16.best_way() == bfloat16.WIDE
model = CompiledLlama({uneven!r}, dtype=torch.bfloat16)
logits = model.forward(rows_of((0, 0, 40)), model.new_cache(1, 64))
torch.testing.assert_close(logits, torch.load({str(tmp_path / "expected.pt")!r}))
"""
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)


def test_machine_code_is_kept_for_exactly_these_sources_and_this_cpu(monkeypatch, tmp_path) -> None:
    """Numba alone would go on with code that other files' functions were compiled into."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "kernels.py").write_text("one = 1\n")
    before = intrinsics.machine_code_folder(tmp_path, sources)
    assert before is not None and before.is_dir()
    assert intrinsics.machine_code_folder(tmp_path, sources) == before
    (sources / "kernels.py").write_text("one = 2\n")
    after = intrinsics.machine_code_folder(tmp_path, sources)
    assert after != before
    monkeypatch.setattr(intrinsics, "_target", lambda: ("x86_64-linux", "znver4", ""))
    assert intrinsics.machine_code_folder(tmp_path, sources) not in (before, after)


def test_machine_code_is_kept_nowhere_without_a_home(tmp_path) -> None:
    sources = Path(intrinsics.__file__).parent
    (tmp_path / "file").write_text("")
    assert intrinsics.machine_code_folder(Path("~/.cache/cria"), sources) is None
    assert intrinsics.machine_code_folder(tmp_path / "file", sources) is None
    assert not Path("~").exists()


def test_a_folder_is_bfloat16_where_all_its_matrices_are(uneven, tmp_path) -> None:
    tensors = load_file(f"{uneven}/model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].float()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert not is_stored_as_bfloat16(tmp_path)
