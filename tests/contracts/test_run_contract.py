"""The run and its checkpoint: what training writes, and what a resume and an export read.

The stored run in artifacts/ is read as a user's older one would be.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from apps.common import packs
from apps.common.files import config as configs
from apps.common.text.tokenizer import load_tokenizer
from apps.train.batches.micro_batch import PackRows
from apps.train.checkpoint import checkpoint
from apps.train.config import RunConfig
from apps.train.export import read_weights
from apps.train.loop.loop import Hooks
from apps.train.loop.record import read_metrics
from apps.train.loop.worker import process_group, work

ARTIFACTS = Path(__file__).parent / "artifacts"
STORED = ARTIFACTS / "run"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """The stored run's settings, at places of this test."""
    base = tmp_path / "base"
    shutil.copytree(ARTIFACTS / "tokenizer", base)
    shape = LlamaConfig(
        vocab_size=load_tokenizer(str(base)).backend.get_vocab_size(),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(shape).save_pretrained(base)
    stored = configs.load(RunConfig, str(STORED / "config.yaml"))
    places = {"base": base, "data": ARTIFACTS / "pack", "out": tmp_path / "run"}
    return replace(stored, **{name: str(place) for name, place in places.items()})


def train(config: RunConfig) -> list[str]:
    """Train in this process; the events that were told."""
    pack = packs.open_pack(config.data)
    told: list[str] = []
    hooks = Hooks(on_event=lambda name, fields: told.append(name))
    commit = {"identity": {"base": "0", "data": pack.info.digest}}
    with process_group():
        work(config, PackRows(pack.split("train"), pack.info.pad_id), commit=commit, hooks=hooks)
    return told


def newest(run: str | Path) -> checkpoint.Checkpoint:
    found = checkpoint.newest(str(run), "digest", pytest.fail)
    assert found is not None
    return found


def test_training_writes_the_run_contract(config: RunConfig) -> None:
    train(config)
    written, stored = newest(config.out), newest(STORED)
    assert written.step == stored.step == config.steps
    assert written.commit.keys() - stored.commit.keys() == {"lost_s"}, "newer than the stored run"
    assert stored.commit.keys() < written.commit.keys()
    assert written.commit["files"].keys() == stored.commit["files"].keys()
    for part in ("model.", "optim."):
        shapes = checkpoint.tensor_shapes(stored, part)
        assert checkpoint.tensor_shapes(written, part) == shapes
    ours, theirs = read_metrics(config.out), read_metrics(str(STORED))
    assert [record.keys() for record in ours] == [record.keys() for record in theirs]
    losses = [[record["loss"] for record in records] for records in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_stored_run_is_exported_and_resumed(config: RunConfig) -> None:
    weights = read_weights(newest(STORED))
    names = LlamaForCausalLM.from_pretrained(config.base).state_dict().keys()
    assert weights.keys() == names
    assert all(tensor.isfinite().all() for tensor in weights.values())
    shutil.copytree(STORED, config.out)
    assert train(replace(config, steps=4))[0] == "resumed"
    assert [record["step"] for record in read_metrics(config.out)] == [1, 2, 3, 4]
    assert newest(config.out).step == 4
