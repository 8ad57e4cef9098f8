"""An export takes the base and the pack that its checkpoint was trained from, and no others."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files import config as configs
from apps.train.config import ExportConfig, LoraConfig, RunConfig
from apps.train.export import run_export
from apps.train.preflight import prepare
from tests.train.conftest import save_pack, small_config
from tests.train.exports import finished

KINDS = {"lora": {"adapter": "lora"}, "top": {"top_layers": 1}, "full": {}}


@pytest.fixture
def started(small_base: Path, small_pack: Path, tmp_path: Path) -> RunConfig:
    """A run whose base and pack may be changed."""
    shutil.copytree(small_base, tmp_path / "base")
    shutil.copytree(small_pack, tmp_path / "pack")
    config = small_config(tmp_path / "base", tmp_path / "pack", tmp_path / "run")
    return replace(config, workers=1, steps=1)


def export(run: RunConfig, **settings: object) -> Path:
    out = Path(run.out).parent / "model"
    run_export(ExportConfig(run=run.out, out=str(out), **settings), Reporter("json"))
    return out


def refuse(run: RunConfig, match: str, **settings: object) -> None:
    with pytest.raises(InputError, match=match):
        export(run, **settings)
    assert not (Path(run.out).parent / "model").exists()


def replace_weights(base: Path) -> None:
    """Others of the same names and shapes."""
    tensors = {
        name: torch.randn_like(t) for name, t in load_file(base / "model.safetensors").items()
    }
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_another_base_s_weights_are_not_mixed_in(started: RunConfig, kind: str) -> None:
    run = finished(replace(started, **KINDS[kind]))
    replace_weights(Path(run.base))
    refuse(run, "is not the base model that .*step-0*1 was trained from", tuned_share=0.5)
    if kind == "full":
        assert export(run).exists(), "it holds weights of its own alone"
    else:
        refuse(run, "is not the base model that")


def test_another_pack_s_template_is_not_exported(started: RunConfig, small_base: Path) -> None:
    run = finished(started)
    shutil.rmtree(run.data)
    save_pack(Path(run.data), small_base, num_rows=22, row_tokens=128, template="vicuna-v1.1")
    refuse(run, "is not the pack that .*step-0*1 was trained on")


def test_another_tokenizer_is_not_exported(started: RunConfig) -> None:
    run = finished(started)
    path = Path(run.base) / "tokenizer.json"
    said = json.loads(path.read_text())
    said["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(said))
    refuse(run, "its weights, config or tokenizer are others now")


def test_a_checkpoint_is_merged_as_it_was_trained(started: RunConfig) -> None:
    """A later start may have changed the settings, and been stopped before its first checkpoint."""
    run = finished(replace(started, adapter="lora", lora=LoraConfig(rank=4, alpha=8.0)))
    changed = replace(run, lora=LoraConfig(rank=4, alpha=64.0), steps=2, allow_change=True)
    prepare(changed)
    assert configs.load(RunConfig, f"{run.out}/config.yaml").lora.alpha == 64.0
    refuse(run, "was trained with lora .*'alpha': 8.0.* and its run now says .*'alpha': 64.0")
