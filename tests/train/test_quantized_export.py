"""`export --quantize`: what the folder holds, as transformers reads it with compressed-tensors."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM
from transformers.utils.quantization_config import CompressedTensorsConfig

from apps.common.errors import InputError
from apps.train.config import RunConfig
from apps.train.model.quantize import plan_quantization, quantized
from tests.train.conftest import save_model
from tests.train.exports import exported, finished, refused
from tests.train.ranks import rows_of

KINDS = {
    "fp8": ("float-quantized", 1.0, 0.99),
    "w8a8": ("int-quantized", 1.0, 0.99),
    "w8a16": ("pack-quantized", 1.0, 0.9999),
    "w4a16": ("pack-quantized", 0.5, 0.98),
}
"""its format, bytes of a weight, and how its logits must go with the whole model's (cosine)"""


@pytest.fixture(scope="module")
def wide_run(small_base, small_pack, tmp_path_factory) -> RunConfig:
    """Of a model whose rows hold whole groups."""
    from tests.train.conftest import small_config

    folder = tmp_path_factory.mktemp("wide")
    base = Path(shutil.copytree(small_base, folder / "base"))
    save_model(base, hidden_size=128, intermediate_size=192, initializer_range=0.05)
    config = small_config(base, small_pack, folder / "run")
    return finished(replace(config, workers=1, steps=4))


@pytest.fixture(scope="module")
def whole(wide_run, tmp_path_factory) -> Path:
    return exported(wide_run, tmp_path_factory.mktemp("whole") / "m", "--dtype", "fp32")


def logits(model: torch.nn.Module, config: RunConfig) -> torch.Tensor:
    ids, _, lengths = rows_of(config).row(0)
    with torch.no_grad():
        return model(torch.tensor([[int(i) for i in ids[: lengths[0]]]])).logits.flatten()


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")  # to dequantize
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_it_and_every_weight_is_within_half_a_step(
    wide_run, whole, tmp_path, kind
) -> None:
    layout, weight_bytes, likeness = KINDS[kind]
    out = exported(wide_run, tmp_path / "m", "--dtype", "fp32", "--quantize", kind)
    stated = json.loads((out / "config.json").read_text())["quantization_config"]
    assert (stated["quant_method"], stated["format"]) == ("compressed-tensors", layout)
    stored, exact = load_file(out / "model.safetensors"), load_file(whole / "model.safetensors")
    linear = [n for n in exact if "_proj" in n]
    plain = [n for n in exact if n not in linear]
    assert all(torch.equal(stored[name], exact[name]) for name in plain)
    held = [t for n, t in stored.items() if n.endswith(("_proj.weight", "_proj.weight_packed"))]
    num_weights = sum(exact[name].numel() for name in linear)
    assert sum(t.numel() * t.itemsize for t in held) == num_weights * weight_bytes

    model, told = AutoModelForCausalLM.from_pretrained(
        out,
        dtype=torch.float32,
        output_loading_info=True,
        quantization_config=CompressedTensorsConfig(dequantize=True),
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    loaded = dict(model.named_parameters())
    for name in linear:
        scales = stored[f"{name}_scale"]
        wide = scales.repeat_interleave(exact[name].shape[1] // scales.shape[1], 1)
        step = wide if kind != "fp8" else torch.maximum(exact[name].abs() / 8, wide / 2**9)
        assert ((loaded[name] - exact[name]).abs() <= step / 2 * 1.001).all(), name

    ours = logits(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32), wide_run)
    theirs = logits(AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32), wide_run)
    assert torch.cosine_similarity(ours, theirs, dim=0) > likeness


def test_a_row_of_zeros_stays_zero(small_base) -> None:
    model = AutoModelForCausalLM.from_pretrained(small_base)
    plan = plan_quantization(model, "w8a8")
    name = next(iter(plan.names))
    weight = torch.cat([torch.zeros(1, 32), torch.ones(1, 32)])
    stored = dict(quantized(iter([(name, weight)]), plan, torch.bfloat16))
    whole = stored[name].float() * stored[f"{name}_scale"].float()
    torch.testing.assert_close(whole, weight, rtol=1e-2, atol=0)


def test_what_cannot_be_rounded_is_refused_before_anything_is_read(
    wide_run, tmp_path, capsys
) -> None:
    argv = ["export", wide_run.out, "--out", str(tmp_path / "m"), "--quantize", "fp8"]
    assert "leave --adapter-only and" in refused([*argv, "--gguf", "q8_0"], capsys)


def test_rows_that_hold_no_whole_groups_and_experts_are_refused(small_base) -> None:
    narrow = AutoModelForCausalLM.from_pretrained(small_base)
    with pytest.raises(InputError, match=r"has rows of 48; take fp8 or w8a8\."):
        plan_quantization(narrow, "w4a16")
    assert len(plan_quantization(narrow, "fp8").names) == 2 * 7
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 10}
    with pytest.raises(InputError, match="has not been proven for mixtral models"):
        plan_quantization(MixtralForCausalLM(MixtralConfig(**sizes, **heads)), "fp8")
