"""The forward pass and its parts beside transformers' own, compiled and in plain torch."""

import json
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from apps.common.errors import ConfigError, CorruptError
from apps.serve.engine.cpu import kernels
from apps.serve.engine.cpu.llama import CompiledLlama
from apps.serve.engine.llama.kv_cache import Rows
from apps.serve.engine.llama.model_folder import read_shape
from apps.serve.engine.llama.rope import rotation
from apps.serve.engine.torch.llama import Llama
from tests.serve.engine.llamas import rows_of

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


@pytest.mark.parametrize("lacking", ["model.embed_tokens.weight", "lm_head.weight"])
def test_an_untied_folder_without_one_of_its_matrices_is_not_served(tmp_path, lacking) -> None:
    write_config(tmp_path)
    tensors = LlamaForCausalLM(AutoConfig.from_pretrained(tmp_path)).state_dict()
    kept = {name: tensor for name, tensor in tensors.items() if name != lacking}
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(CorruptError, match=f"lacks {lacking}, which its config.json promises"):
        Llama(tmp_path, device="cpu", dtype=torch.float32)


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
        ({"quantization_config": {"quant_method": "fp8"}}, r"is quantized \(fp8\), and the torch"),
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
    for name, context in (("Mistral", 512), ("Qwen2", 1024)):
        kind = {"architectures": [f"{name}ForCausalLM"], "model_type": name.lower()}
        (tmp_path / "config.json").write_text(json.dumps(config | kind))
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
    rows = Rows(logit_rows=list(range(len(ids))))
    rows.add(ids, 0, slot=0)
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0]
    for ours in both(tmp_path):
        torch.testing.assert_close(ours.forward(rows, ours.new_cache(1, 64)), expected)


def both(folder) -> tuple[CompiledLlama, Llama]:
    return (
        CompiledLlama(folder, dtype=torch.float32),
        Llama(folder, device="cpu", dtype=torch.float32),
    )


def test_torch_gives_the_logits_of_the_compiled_pass(llama_of_any_shape) -> None:
    models = both(llama_of_any_shape)
    caches = [model.new_cache(4, 96, 2) for model in models]

    def check(*spans: tuple[int, int, int], num_decode: int = 0) -> None:
        rows = rows_of(*spans, num_decode=num_decode)
        logits = [m.forward(rows, cache) for m, cache in zip(models, caches, strict=True)]
        torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)

    check((0, 0, 40), (2, 0, 5))
    check((0, 40, 1), (2, 5, 1), (1, 0, 70), num_decode=2)
    check((2, 6, 1), (3, 0, 1), num_decode=1)
    for cache in caches:  # slot 0's first chunk becomes slot 3's
        cache.copy_chunk(cache.chunk_of(0, 0), cache.first_spare)
        cache.copy_chunk(cache.first_spare, cache.chunk_of(3, 0))
    check((3, 32, 1), num_decode=1)


def test_any_number_of_threads_gives_the_same_bits(tiny_llama) -> None:
    outputs = []
    for threads in (1, 2, 5):
        model = CompiledLlama(tiny_llama, dtype=torch.float32, num_threads=threads)
        cache = model.new_cache(2, 128)
        for _ in range(20):
            logits = model.forward(rows_of((0, 0, 100), (1, 0, 60)), cache)
        outputs.append(logits.clone())
        time.sleep(0.02)  # helpers fall asleep, and wake
        assert torch.equal(model.forward(rows_of((0, 0, 100), (1, 0, 60)), cache), outputs[0])
        cache.close()
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_a_pass_does_not_wait_for_a_helper_that_does_not_run(tiny_llama) -> None:
    model = CompiledLlama(tiny_llama, dtype=torch.float32, num_threads=3)
    cache = model.new_cache(1, 64)
    expected = model.forward(rows_of((0, 0, 30)), cache).clone()
    cache.close()  # its helpers have ended
    assert torch.equal(model.forward(rows_of((0, 0, 30)), cache), expected)


def test_the_exponential_is_within_a_ten_millionth() -> None:
    x = np.linspace(-87, 0, 10_001, dtype=np.float32)
    ours = np.array([kernels.exp(value) for value in x])
    assert np.abs(ours / np.exp(x.astype(np.float64)) - 1).max() < 2e-7
