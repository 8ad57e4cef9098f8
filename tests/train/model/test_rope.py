"""Positions are stretched where each family keeps its rotary settings, or refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.train.config import ExportConfig, RopeConfig
from apps.train.export import run_export
from apps.train.loop.record import read_metrics
from apps.train.model import load
from tests.train.families import FAMILIES, LLAMA_3_ROPE, SIZES, save_family, save_pack
from tests.train.test_families import config_of, mean_loss, reference, train

YARN, LINEAR = RopeConfig(kind="yarn", factor=8.0), RopeConfig(kind="linear", factor=8.0)


@pytest.mark.parametrize("rope", [LINEAR, YARN], ids=lambda rope: rope.kind)
def test_the_wide_layers_of_gemma_3_are_stretched_and_exported_so(
    tmp_path: Path, rope: RopeConfig
) -> None:
    base = save_family(tmp_path / "base", FAMILIES["gemma3"])
    segments = save_pack(tmp_path / "pack", base)
    config = config_of(base, tmp_path / "pack", tmp_path / "run", steps=2, rope=rope)
    first = train(config)[0]
    assert abs(first - mean_loss(reference(base), segments)) > 1e-3, "it is another model"
    out = tmp_path / "model"
    run_export(ExportConfig(run=config.out, out=str(out), dtype="fp32"), Reporter("json"))
    said = AutoConfig.from_pretrained(out)
    assert said.rope_parameters["full_attention"]["rope_type"] == rope.kind
    assert said.rope_parameters["sliding_attention"]["rope_type"] == "default"
    assert said.max_position_embeddings == 8 * SIZES["max_position_embeddings"]
    last = read_metrics(config.out)[-1]["val_loss"]
    assert mean_loss(reference(out), segments) == pytest.approx(last, abs=5e-6)


def folder_of(tmp_path: Path, name: str, **changes: object) -> str:
    """A folder of a config alone."""
    family = FAMILIES[name]
    sizes = {**SIZES, "vocab_size": 400, "pad_token_id": 0, **family.changes, **changes}
    AutoConfig.for_model(family.model_type, **sizes).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("name", [n for n in FAMILIES if "rope" not in n and n != "phi3"])
@pytest.mark.parametrize("rope", [LINEAR, YARN], ids=lambda rope: rope.kind)
def test_what_is_stretched_is_still_so_after_saving(
    tmp_path: Path, name: str, rope: RopeConfig
) -> None:
    folder = folder_of(tmp_path, name, tie_word_embeddings=False)
    config = load.read_config(folder, rope, 8 * SIZES["max_position_embeddings"])
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == config.rope_parameters
    with pytest.raises(InputError, match=f"is already extended .rope_type {rope.kind}, 2048 tok"):
        load.read_config(folder, rope, 64)


@pytest.mark.parametrize("rope", [LINEAR, YARN], ids=lambda rope: rope.kind)
def test_a_family_whose_config_cannot_say_it_is_refused(tmp_path: Path, rope: RopeConfig) -> None:
    folder = folder_of(tmp_path, "phi3", rope_parameters=None)
    with pytest.raises(InputError, match=f"phi3 model, .* say rope.kind {rope.kind}; .* 256 or"):
        load.read_config(folder, rope, 64)


def test_a_model_of_windows_alone_has_nothing_to_stretch(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path, "gemma3", layer_types=["sliding_attention"] * 2,
        tie_word_embeddings=False,
    )  # fmt: skip
    with pytest.raises(InputError, match="has no full_attention layer"):
        load.read_config(folder, replace(LINEAR, factor=2.0), 64)


def test_a_llama_3_base_is_extended_already(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "llama", rope_parameters=LLAMA_3_ROPE)
    with pytest.raises(InputError, match="rope_type llama3, 256 tokens"):
        load.read_config(folder, LINEAR, 64)
