"""Every tensor of a base fills a parameter or is named in a refusal; nothing is left to chance."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from apps.common.errors import ConfigError, InputError
from apps.train.config import LoraConfig, RopeConfig
from apps.train.model import load, lora
from apps.train.model.base_folder import fetch_base
from apps.train.model.shape import from_config
from apps.train.model.stored import as_stored, sources
from apps.train.plan import adapter_parameters
from apps.train.presets import debug
from tests.train.families import FAMILIES, SIZES, Family, save_family

FILE = "model.safetensors"


def base_of(folder: Path, name: str = "llama", **changes: object) -> Path:
    family = FAMILIES[name]
    return Path(save_family(folder, replace(family, changes={**family.changes, **changes})))


def rewrite(base: Path, **changes: torch.Tensor | None) -> None:
    """Add, replace or (None) take away tensors of a base."""
    tensors = load_file(base / FILE) | {k: v for k, v in changes.items() if v is not None}
    kept = {name: value for name, value in tensors.items() if changes.get(name, 0) is not None}
    save_file(kept, base / FILE, metadata={"format": "pt"})


def set_config(base: Path, **changes: object) -> None:
    said = json.loads((base / "config.json").read_text()) | changes
    (base / "config.json").write_text(json.dumps(said))


def read(base: Path) -> dict[str, torch.Tensor]:
    """All parameters as training begins with them."""
    return dict(load.base_weights(str(base), load.read_config(str(base), RopeConfig(), 64)))


def theirs(base: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return dict(model.named_parameters())


def assert_read_as_transformers_does(base: Path) -> None:
    ours, expected = read(base), theirs(base)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name].float(), value.detach(), rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("name", ["llama", "llama tied", "gemma3", "mixtral", "qwen3-moe"])
def test_weights_are_those_that_transformers_reads(tmp_path: Path, name: str) -> None:
    assert_read_as_transformers_does(base_of(tmp_path, name))


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe", "llama"])
def test_an_export_stores_what_was_read(tmp_path: Path, name: str) -> None:
    base = base_of(tmp_path, name)
    config = load.read_config(str(base), RopeConfig(), 64)
    stored = dict(as_stored(config, read(base).items()))
    there = load_file(base / FILE)
    assert stored.keys() == there.keys()
    assert all(torch.equal(stored[key], there[key]) for key in there)


def test_a_tensor_without_a_place_is_named(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    rewrite(base, **{"model.layers.7.mlp.up_proj.weight": torch.ones(2, 2)})
    with pytest.raises(InputError, match=r"holds 1 weights .* place for, first model\.layers\.7"):
        read(base)


def test_buffers_of_older_versions_are_no_weights(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    rewrite(base, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert_read_as_transformers_does(base)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    base = base_of(tmp_path, "mixtral")
    rewrite(base, **{"model.layers.1.block_sparse_moe.experts.2.w3.weight": None})
    with pytest.raises(InputError, match=r"lacks 1 .* model\.layers\.1\.mlp\.experts\.gate_up"):
        read(base)


def test_a_model_without_its_head_s_prefix_is_read(tmp_path: Path) -> None:
    """As `AutoModel(...).save_pretrained` leaves it."""
    base = base_of(tmp_path, "llama tied")
    tensors = load_file(base / FILE)
    short = {name.removeprefix("model."): value for name, value in tensors.items()}
    save_file(short, base / FILE, metadata={"format": "pt"})
    assert_read_as_transformers_does(base)


@pytest.mark.parametrize("kind", ["same", "other", "head only"])
def test_a_tied_head_that_is_stored_too(tmp_path: Path, kind: str) -> None:
    base = base_of(tmp_path, "llama tied")
    embedding = load_file(base / FILE)["model.embed_tokens.weight"]
    head = embedding + 1 if kind == "other" else embedding.clone()
    taken = {"model.embed_tokens.weight": None} if kind == "head only" else {}
    rewrite(base, **{"lm_head.weight": head}, **taken)
    config = load.read_config(str(base), RopeConfig(), 64)
    assert config.tie_word_embeddings == (kind != "other")
    assert_read_as_transformers_does(base)


@pytest.mark.parametrize("lacking", ["model.embed_tokens.weight", "lm_head.weight"])
def test_a_head_stands_for_the_embedding_only_where_they_are_tied(
    tmp_path: Path, lacking: str
) -> None:
    base = base_of(tmp_path)
    rewrite(base, **{lacking: None})
    with pytest.raises(InputError, match=f"lacks 1 weights of its own config, first {lacking}"):
        read(base)


def test_no_quantization_may_be_said_as_null(tmp_path: Path) -> None:
    set_config(base := base_of(tmp_path), quantization_config=None)
    assert_read_as_transformers_does(base)


def test_only_the_model_s_own_files_are_read(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    other = {name: value + 1 for name, value in load_file(base / FILE).items()}
    save_file(other, base / "consolidated.safetensors", metadata={"format": "pt"})
    assert_read_as_transformers_does(base)
    (base / FILE).unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors and no index"):
        fetch_base(str(base))


def test_a_file_that_lacks_what_the_index_promises_is_named(tmp_path: Path) -> None:
    base = base_of(tmp_path, "llama sharded")
    index = json.loads((base / "model.safetensors.index.json").read_text())
    first, *others = sorted(set(index["weight_map"].values()))
    (base / others[0]).write_bytes((base / first).read_bytes())
    with pytest.raises(InputError, match=r"index of .* which does not hold it"):
        read(base)


BLOCK = (16, 16)


def as_fp8(base: Path) -> dict[str, torch.Tensor]:
    """Store the linear maps in fp8 with a scale a block; what they stand for."""
    tensors, meant = load_file(base / FILE), {}
    for name, weight in list(tensors.items()):
        if "proj" not in name:
            continue
        height, width = (-(-n // b) for n, b in zip(weight.shape, BLOCK, strict=True))
        scales = torch.rand(height, width) + 0.01
        wide = scales.repeat_interleave(BLOCK[0], 0).repeat_interleave(BLOCK[1], 1)
        wide = wide[: weight.shape[0], : weight.shape[1]]
        codes = (weight / wide).to(torch.float8_e4m3fn)
        tensors |= {name: codes, f"{name}_scale_inv": scales}
        meant[name] = codes.float() * wide
    save_file(tensors, base / FILE, metadata={"format": "pt"})
    said = {"quant_method": "fp8", "weight_block_size": list(BLOCK), "activation_scheme": "dynamic"}
    set_config(base, quantization_config=said)
    return meant


def test_fp8_weights_are_the_numbers_they_stand_for(tmp_path: Path) -> None:
    base = base_of(tmp_path, intermediate_size=40)
    meant = as_fp8(base)
    found = read(base)
    assert meant and all(torch.equal(found[name], value) for name, value in meant.items())
    config = load.read_config(str(base), RopeConfig(), 64)
    assert not hasattr(config, "quantization_config"), "an export holds whole weights"
    shapes = {name: value.shape for name, value in found.items()}
    for name, source in sources(str(base), config, shapes).items():
        cut = [source.rows(i, min(i + 5, source.shape[0])) for i in range(0, source.shape[0], 5)]
        assert torch.equal(torch.cat(cut).float(), found[name].float()), "a rank reads its rows"


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors"])
def test_another_quantization_is_refused_by_its_name(tmp_path: Path, method: str) -> None:
    set_config(base := base_of(tmp_path), quantization_config={"quant_method": method})
    with pytest.raises(InputError, match=rf"is quantized \({method}\).*made from: its card"):
        read(base)


def test_numbers_of_another_type_are_refused(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    rewrite(base, **{"model.norm.weight": torch.ones(32, dtype=torch.int8)})
    with pytest.raises(InputError, match=r"model\.norm\.weight in .* is of type I8; expected F64"):
        read(base)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama", {"attention_dropout": 0.3}),
        ("mixtral", {"router_jitter_noise": 0.1}),
        ("qwen3-moe", {"output_router_logits": True}),
        ("gemma3", {"use_bidirectional_attention": True}),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, name, said) -> None:
    set_config(base := base_of(tmp_path, name), **said)
    ((key, value),) = said.items()
    with pytest.raises(InputError, match=rf"has {key} {value} in its config.json, which is not"):
        read(base)


@pytest.mark.parametrize("name", ["llama", "phi3", "qwen3-moe", "gemma2", "llama tied"])
def test_lora_takes_every_linear_layer_and_the_plan_counts_them(tmp_path: Path, name: str) -> None:
    base = base_of(tmp_path, name)
    config = load.read_config(str(base), RopeConfig(), 64)
    model = load.build_on_meta(config)
    linear = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)} - {"lm_head"}
    lora.inject(model, LoraConfig(rank=4))
    adapted = {n.split(".lora_A.")[0] for n, _ in model.named_parameters() if ".lora_A." in n}
    assert adapted == linear
    run = replace(debug(), adapter="lora", lora=LoraConfig(rank=4))
    assert adapter_parameters(run, from_config(config.to_dict())) == lora.num_parameters(model)


def test_a_target_that_no_layer_has_is_refused(tmp_path: Path) -> None:
    model = load.build_on_meta(load.read_config(str(base_of(tmp_path, "phi3")), RopeConfig(), 64))
    with pytest.raises(ConfigError, match=r"targets q_proj name no .* some of down_proj, gate_up"):
        lora.inject(model, LoraConfig(targets=("q_proj", "o_proj")))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_shape_counts_the_weights_that_are_there(name: str) -> None:
    """Biases and additional norms apart, which no cost follows from."""
    family: Family = FAMILIES[name]
    sizes = {**SIZES, "vocab_size": 400, "pad_token_id": 0, **family.changes}
    config = AutoConfig.for_model(family.model_type, **sizes)
    model = load.build_on_meta(config)
    matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    shape = from_config(config.to_dict())
    norms = (2 * shape.num_layers + 1) * shape.hidden_size
    assert shape.num_parameters - norms == matrices


def test_added_tokens_get_the_mean_of_the_others(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    before = read(base)["model.embed_tokens.weight"]
    added = {"id": len(before), "content": "<think>", "special": False, "normalized": False,
             "single_word": False, "lstrip": False, "rstrip": False}  # fmt: skip
    file = json.loads((base / "tokenizer.json").read_text())
    file["added_tokens"].append(added)
    (base / "tokenizer.json").write_text(json.dumps(file))
    config = load.read_config(str(base), RopeConfig(), 64, resized=True)
    assert config.vocab_size == len(before) + 1
    grown = dict(load.base_weights(str(base), config))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        stored = load_file(base / FILE)[name]
        assert torch.equal(grown[name][:-1], stored)
        torch.testing.assert_close(grown[name][-1], stored.mean(0))
