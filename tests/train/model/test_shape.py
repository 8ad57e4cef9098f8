"""A shape read from config.json has the parameters of the model that transformers builds of it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from apps.common.files.config_defaults import CONFIG_DEFAULTS
from apps.train.model import shape

SIZES = {
    "hidden_size": 2048,
    "num_hidden_layers": 6,
    "num_attention_heads": 32,
    "intermediate_size": 4096,
    "vocab_size": 32000,
    "pad_token_id": 0,
}
SPARSE = {"moe_intermediate_size": 512, "num_experts": 8, "num_experts_per_tok": 2}


@pytest.mark.parametrize("kind", shape.FAMILY)
def test_the_defaults_are_those_of_transformers_classes(kind: str) -> None:
    theirs = CONFIG_MAPPING[kind]()
    stated = CONFIG_DEFAULTS[kind]
    assert {key: getattr(theirs, key) for key in stated} == stated
    assert stated["max_position_embeddings"] and theirs.tie_word_embeddings == bool(
        stated.get("tie_word_embeddings")
    )


@pytest.mark.parametrize("kind", shape.FAMILY)
@pytest.mark.parametrize("more", [{}, {"num_key_value_heads": 2}])
def test_a_key_that_is_left_out_counts_as_transformers_counts_it(
    tmp_path: Path, kind: str, more: dict
) -> None:
    assert_same_size(tmp_path, {"model_type": kind, **SIZES, **more})


@pytest.mark.parametrize("kind", ["llama", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"])
def test_a_key_that_says_null_is_derived(tmp_path: Path, kind: str) -> None:
    config = {"model_type": kind, **SIZES, "num_key_value_heads": None}
    assert assert_same_size(tmp_path, config).num_kv_heads == SIZES["num_attention_heads"]


@pytest.mark.parametrize(
    "layers",
    [
        {},
        {"decoder_sparse_step": 2},
        {"mlp_only_layers": [0, 4]},
        {"decoder_sparse_step": 2, "mlp_only_layers": [1, 2]},
        {"decoder_sparse_step": 4, "mlp_only_layers": None},
    ],
)
def test_the_dense_layers_of_a_mixture_are_counted(tmp_path: Path, layers: dict) -> None:
    config = {"model_type": "qwen3_moe", **SIZES, **SPARSE, **layers}
    read = assert_same_size(tmp_path, config)
    experts = 3 * read.hidden_size * 512 * (8 - 2)
    idle = (read.num_layers - read.num_dense_layers) * experts
    assert read.active_parameters == read.num_parameters - idle


def assert_same_size(folder: Path, config: dict) -> shape.ModelShape:
    """Within a thousandth: biases and the norms of heads are not counted."""
    (folder / "config.json").write_text(json.dumps(config))
    theirs = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(theirs)
    counted = sum(parameter.numel() for parameter in model.parameters())
    read = shape.load(str(folder))
    assert read.num_parameters == pytest.approx(counted, rel=1e-3)
    assert read.num_kv_heads == theirs.num_key_value_heads
    assert read.context_tokens == theirs.max_position_embeddings
    assert read.tied_embeddings == theirs.tie_word_embeddings
    return read
