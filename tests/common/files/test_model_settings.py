"""One reader of a model folder: what two apps ask, they are told alike."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from apps.common.errors import ConfigError, InputError
from apps.common.files.model_settings import (
    ModelSettings,
    read_settings,
    stored_tensors,
    weight_files,
)

MISTRAL = {"model_type": "mistral", "max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (MISTRAL | {"sliding_window": 4096}, 4096),
        (MISTRAL | {"sliding_window": None}, None),
        (MISTRAL, 4096),
        ({"model_type": "qwen2", "sliding_window": 512}, None),
        ({"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": True}, 512),
        ({"model_type": "llama", "sliding_window": 512}, None),
        ({"model_type": "phi3", "sliding_window": 2047}, 2047),
    ],
)
def test_the_window_is_the_one_that_transformers_uses(tmp_path, config, window) -> None:
    settings = ModelSettings(config)
    assert settings.window_tokens == window
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": 0}))
    theirs = AutoConfig.from_pretrained(tmp_path)
    positions = theirs.max_position_embeddings
    assert settings.context_without_window == min(window or positions, positions)
    if config["model_type"] != "llama":  # which keeps the key and never reads it
        assert theirs.sliding_window == window


@pytest.mark.parametrize(
    ("generation", "config", "ids"),
    [
        ({"eos_token_id": None}, {"eos_token_id": 2}, (2,)),
        ({"eos_token_id": [1, 5]}, {"eos_token_id": 2}, (1, 5)),
        ({}, {"eos_token_id": [2]}, (2,)),
        ({}, {"eos_token_id": 0}, (0,)),
        ({}, {}, ()),
    ],
)
def test_end_tokens_come_from_whichever_file_names_one(generation, config, ids) -> None:
    assert ModelSettings(config, generation).eos_token_ids == ids


def test_a_folder_without_files_says_nothing(tmp_path) -> None:
    settings = read_settings(tmp_path)
    assert (settings.config, settings.vocab_size, settings.positions) == ({}, 0, None)
    with pytest.raises(ConfigError, match=r"lacks hidden_size, .*, intermediate_size; expected a"):
        settings.sizes()
    assert weight_files(tmp_path) == {}


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "num_key_value_heads"])
def test_a_size_below_one_is_refused(key: str) -> None:
    sizes = dict.fromkeys(
        ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"), 8
    )
    with pytest.raises(ConfigError, match=f"says {key} -1; expected 1 or more"):
        ModelSettings({**sizes, "intermediate_size": 8, key: -1}).sizes()


def test_a_file_that_is_no_json_is_refused_by_its_name(tmp_path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(InputError, match=r"The generation_config\.json of .* expected JSON"):
        read_settings(tmp_path)


def test_weights_are_the_files_that_transformers_takes(tmp_path: Path) -> None:
    """One whole file before an index; what else lies there is not the model."""
    one, other = {"a": torch.zeros(2, 3)}, {"b": torch.zeros(4, dtype=torch.bfloat16)}
    save_file(other, tmp_path / "consolidated.safetensors")
    assert weight_files(tmp_path) == {}
    index = {"weight_map": {"b": "consolidated.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_files(tmp_path) == {"b": "consolidated.safetensors"}
    save_file(one, tmp_path / "model.safetensors")
    assert weight_files(tmp_path) == {"a": "model.safetensors"}
    assert stored_tensors(tmp_path / "consolidated.safetensors") == {"b": ("BF16", [4])}


def test_an_index_that_lies_hides_no_tensor_of_its_files(tmp_path: Path) -> None:
    """transformers reads all that they hold, and of two of one name the last."""
    save_file({"a": torch.zeros(1), "c": torch.zeros(1)}, tmp_path / "1.safetensors")
    save_file({"b": torch.zeros(1), "c": torch.ones(1)}, tmp_path / "2.safetensors")
    index = {"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    held = {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}
    assert weight_files(tmp_path) == held
    index["weight_map"]["d"] = "1.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"names d in 1\.safetensors, which does not hold it"):
        weight_files(tmp_path)
