"""A model of a few thousand parameters and a pack for it, made once a session."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from apps.common.packs import fill_rows, write_pack
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import load_tokenizer
from apps.train.config import CheckpointConfig, RunConfig
from apps.train.presets import debug
from tests.made import byte_level_folder

transformers_logging.disable_progress_bar()
ROW_TOKENS = 128
WORDS = ("Paris", "is", "the", "capital", "of", "France", "and", "2+2", "makes", "four")


def conversation(draw: random.Random, turns: int) -> list[dict[str, str]]:
    messages = []
    for _ in range(turns):
        words = " ".join(draw.choices(WORDS, k=draw.randint(1, 4)))
        messages += [
            {"role": "user", "content": words},
            {"role": "assistant", "content": words.upper()},
        ]
    return messages


def save_model(folder: Path, **shape: object) -> None:
    """A random LLaMA with grouped-query attention in the folder of a tokenizer."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": load_tokenizer(str(folder)).backend.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
    }
    LlamaForCausalLM(LlamaConfig(**sizes | shape)).save_pretrained(folder)


def save_pack(
    folder: Path, base: Path, num_rows: int, row_tokens: int, template: str, num_val: int = 3
) -> None:
    """Rows of short conversations, several a row, the last one uneven."""
    tokenizer = load_tokenizer(str(base))
    named = load_template(template, tokenizer)
    draw = random.Random(1)
    rows, current, used = [], [], 0
    while len(rows) < num_rows:
        encoded = named.encode(tokenizer.backend, conversation(draw, draw.randint(1, 3)))
        ids, mask = encoded.ids, encoded.mask
        if used + len(ids) > row_tokens:
            rows.append(current)
            current, used = [], 0
        current.append((ids[:row_tokens], mask[:row_tokens]))
        used += len(current[-1][0])
    packed = {"train": rows, "val": rows[:num_val]}
    splits = {k: fill_rows(v, row_tokens, tokenizer.pad_id) for k, v in packed.items()}
    write_pack(str(folder), splits, named, tokenizer.digest, tokenizer.pad_id)


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    byte_level_folder(folder)
    write_template(str(folder), load_template("llama-2", load_tokenizer(str(folder))))
    save_model(folder)
    return folder


@pytest.fixture(scope="session")
def small_pack(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    save_pack(folder, small_base, num_rows=22, row_tokens=ROW_TOKENS, template="llama-2")
    return folder


def small_config(base: Path, pack: Path, out: Path) -> RunConfig:
    """The debug preset on the small model: 6 rows a step, fp32, a checkpoint every second step."""
    return replace(
        debug(),
        base=str(base),
        data=str(pack),
        out=str(out),
        max_length=ROW_TOKENS,
        global_batch_rows=6,
        workers=2,
        steps=8,
        precision="fp32",
        checkpoint=CheckpointConfig(interval_steps=2, keep_last=3),
    )


@pytest.fixture
def small_run(small_base: Path, small_pack: Path, tmp_path: Path) -> RunConfig:
    return small_config(small_base, small_pack, tmp_path / "run")


@pytest.fixture(scope="module")
def full_run(small_base, small_pack, tmp_path_factory) -> RunConfig:
    from tests.train.exports import finished  # which imports from here

    out = tmp_path_factory.mktemp("full") / "run"
    return finished(replace(small_config(small_base, small_pack, out), workers=1, steps=4))
