"""The parts of the forward pass beside transformers' own, and the plain torch attention."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numba import njit
from numba.core.caching import FunctionCache
from transformers import AutoConfig, LlamaConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from apps.common.errors import ConfigError
from apps.serve.engine import kernels, team
from apps.serve.engine.attention import CompiledAttention, Rows, TorchAttention
from apps.serve.engine.llama import Llama
from apps.serve.engine.model_folder import read_shape
from apps.serve.engine.rope import rotation

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 256,
}  # fmt: skip


def write_config(folder, **changes) -> dict:
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8,
        vocab_size=16, max_position_embeddings=1024, architectures=["LlamaForCausalLM"], **changes,
    )  # fmt: skip
    config.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 10000.0},
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        LLAMA3,
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_rotation_equals_transformers(tmp_path, rope) -> None:
    write_config(tmp_path, rope_parameters=rope)
    config = AutoConfig.from_pretrained(tmp_path)
    positions = torch.arange(1024)[None]
    expected = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    cos, sin = rotation(read_shape(tmp_path))
    for ours, theirs in zip((cos, sin), expected, strict=True):
        torch.testing.assert_close(ours, theirs[0, :, :16], rtol=0, atol=2e-4)


def test_older_folders_say_the_same_in_other_words(tmp_path) -> None:
    config = write_config(tmp_path, rope_parameters=LLAMA3)
    shape = read_shape(tmp_path)
    stretch = {k: v for k, v in LLAMA3.items() if k != "rope_theta"}
    older = {k: v for k, v in config.items() if k not in ("rope_parameters", "head_dim")}
    older |= {"rope_theta": 500000.0, "rope_scaling": stretch}
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert read_shape(tmp_path) == shape


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "cannot run GPT2LMHeadModel"),
        ({"hidden_act": "gelu"}, "with gelu"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope scaling 'yarn'"),
    ],
)
def test_what_it_cannot_run_is_refused_with_the_way_out(tmp_path, changes, sentence) -> None:
    config = write_config(tmp_path) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=sentence) as caught:
        rotation(read_shape(tmp_path))
    assert "engine: vllm" in str(caught.value)


def test_a_sliding_window_bounds_the_context(tmp_path) -> None:
    config = write_config(tmp_path) | {"sliding_window": 512}
    for name, context in (("MistralForCausalLM", 512), ("Qwen2ForCausalLM", 1024)):
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
        assert read_shape(tmp_path).context_tokens == context


def test_qwen3_with_normed_heads_gives_the_logits_of_transformers(tmp_path) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        num_hidden_layers=2, intermediate_size=40, vocab_size=64, max_position_embeddings=128,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    model.save_pretrained(tmp_path)
    ids = list(range(2, 50))
    ours = Llama(tmp_path, device="cpu", dtype=torch.float32)
    rows = Rows(logit_rows=list(range(len(ids))))
    rows.add(ids, 0, slot=0)
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(ours.forward(rows, ours.new_cache(1, 64)), expected)


def test_bfloat16_weights_stay_close_to_float32(tiny_llama) -> None:
    logits = []
    for dtype in (torch.float32, torch.bfloat16):
        model = Llama(tiny_llama, device="cpu", dtype=dtype)
        rows = Rows(logit_rows=[19])
        rows.add(list(range(20)), 0, slot=0)
        logits.append(model.forward(rows, model.new_cache(1, 64)))
    assert torch.nn.functional.cosine_similarity(*logits).item() > 0.999


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_torch_attention_equals_the_compiled_one(tiny_llama, kv_heads) -> None:
    shape = replace(read_shape(tiny_llama), num_kv_heads=kv_heads, num_layers=1)
    size = (shape, 4, 96, 2)
    both = CompiledAttention(*size), TorchAttention(*size, "cpu", torch.float32)
    torch.manual_seed(0)
    width = (shape.num_heads + 2 * kv_heads) * shape.head_dim
    for spans, num_decode in (
        (((0, 0, 40), (2, 0, 5)), 0),  # (slot, position, tokens)
        (((0, 40, 1), (2, 5, 1), (1, 0, 70)), 2),
        (((2, 6, 1), (3, 0, 1)), 1),
    ):
        rows = Rows(num_decode=num_decode)
        for slot, position, tokens in spans:
            rows.add([0] * tokens, position, slot)
        qkv = torch.randn(len(rows.slots), width)
        outputs = []
        for attention in both:
            attention.plan(rows)
            outputs.append(attention(0, qkv.clone()))
        torch.testing.assert_close(*outputs)
    for attention in both:  # slot 0's first chunk becomes slot 3's
        attention.copy_chunk(attention.chunk_of(0, 0), attention.first_spare)
        attention.copy_chunk(attention.first_spare, attention.chunk_of(3, 0))
    rows = Rows(num_decode=1)
    rows.add([0], 32, slot=3)
    qkv = torch.randn(1, width)
    for attention in both:
        attention.plan(rows)
    torch.testing.assert_close(*(attention(0, qkv.clone()) for attention in both))


def test_the_exponential_is_within_a_ten_millionth() -> None:
    x = np.linspace(-87, 0, 10_001, dtype=np.float32)
    ours = np.array([kernels.exp(value) for value in x])
    assert np.abs(ours / np.exp(x.astype(np.float64)) - 1).max() < 2e-7


def test_rows_are_shared_out_among_torchs_threads(tiny_llama, monkeypatch) -> None:
    shape = replace(read_shape(tiny_llama), num_layers=1)
    rows = Rows()
    rows.add([0] * 90, 0, slot=0)
    qkv = torch.randn(90, (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim)
    outputs = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        attention = CompiledAttention(shape, 1, 96, 0)
        attention.plan(rows)
        outputs.append(attention(0, qkv.clone()))
    assert torch.equal(*outputs)
    assert team._gomp_parallel() is not None


def test_kernels_compile_where_no_folder_can_be_written(monkeypatch) -> None:
    def add(a, b):
        return a + b

    monkeypatch.setattr(FunctionCache._impl_class, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        njit(add, cache=True)
    assert kernels._cached(njit)(add)(2, 3) == 5
