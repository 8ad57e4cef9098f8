"""What a plan is made from: packs, models, earlier runs; what is none of them is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import MistralConfig

from apps.common import packs
from apps.common.command.cli import run
from apps.common.errors import ConfigError, InputError
from apps.common.files import config as configs
from apps.common.text.templates import NAMED
from apps.train.__main__ import COMMANDS
from apps.train.config import RopeConfig
from apps.train.model import load, shape
from apps.train.plan import make_plan, presets
from apps.train.presets import debug

VICUNA_7B = presets()["vicuna-7b"]()


def test_data_size_is_read_from_a_pack(tmp_path):
    uri = _write_pack(tmp_path, num_rows=30, max_length=64)
    plan = make_plan(replace(VICUNA_7B, data=uri, max_length=64, global_batch_rows=8))
    assert (plan.data.epoch_rows, plan.data.row_tokens) == (30, 64)
    assert plan.data.fill == pytest.approx(60 / 64)
    assert plan.data.steps == -(-30 * 3 // 8)


def _write_pack(folder: Path, num_rows: int, max_length: int) -> str:
    """A finished pack whose rows hold one conversation of max_length - 4 tokens."""
    conversation = (np.ones(max_length - 4, np.int32), np.ones(max_length - 4, bool))
    rows = packs.fill_rows([[conversation]] * num_rows, max_length, pad_id=0)
    packs.write_pack(str(folder), {"train": rows}, NAMED["vicuna-v1.1"], tokenizer_digest="t")
    return str(folder)


def test_a_folder_without_a_pack_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"apps\.data pack"):
        make_plan(replace(VICUNA_7B, data=str(tmp_path)))


def test_speed_is_read_from_an_earlier_run(tmp_path):
    configs.write_resolved(replace(debug(), max_length=256), str(tmp_path))
    step_s = [9.0, 9.0, *[0.5] * 8]
    records = [
        {"step": n + 1, "step_s": s, "world_size": 2, "checkpoint_s": 0.3 * (n == 5)}
        for n, s in enumerate(step_s)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    recipe = presets()["debug"]()
    there = replace(recipe, gpus="2xCPU-4GB", price="0.1", measured=str(tmp_path))
    plan = make_plan(there)
    assert plan.training.step_s == pytest.approx(0.5, rel=0.01)
    assert plan.training.mfu is None
    assert plan.checkpoints.stall_s == 0.3
    stated = make_plan(replace(there, tokens_per_s=2 * 256 / 0.25))
    assert stated.training.step_s == pytest.approx(0.25, rel=0.01)
    assert stated.checkpoints.stall_s == 0.3


def test_a_run_with_empty_slots_is_planned_as_fast_as_it_was_measured(tmp_path):
    """Three rows on two ranks, two at a time: the fourth slot was computed too."""
    uneven = replace(presets()["debug"](), gpus="2xCPU-4GB", global_batch_rows=3, max_length=256)
    configs.write_resolved(replace(debug(), max_length=256, global_batch_rows=3), str(tmp_path))
    record = {"step": 1, "step_s": 0.5, "world_size": 2}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    training = make_plan(replace(uneven, measured=str(tmp_path))).training
    assert training.empty_rows == 1 and training.step_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workers": 4}, "--workers 8 or --gpus 4xA100-80GB"),
        ({"device": "cpu"}, "--device auto, or --gpus 2xCPU-4GB"),
        ({"gpus": "128xH100"}, "has 128 but a step has 96 rows"),
        ({"device": "cuda", "gpus": "2xCPU-4GB"}, "--device cpu, or --gpus 8xA100-80GB"),
    ],
)
def test_machines_that_the_run_would_not_use_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        make_plan(replace(VICUNA_7B, **changes))


def test_rows_that_the_model_does_not_reach_are_refused_until_it_is_extended():
    long = replace(VICUNA_7B, max_length=8192)
    with pytest.raises(ConfigError, match=r"llama-7b reaches 2048; pack .* --rope.factor 4\."):
        make_plan(long)
    extended = replace(long, rope=RopeConfig(kind="linear", factor=4.0))
    assert make_plan(extended).data.row_tokens == 8192


def test_model_shape_is_read_from_a_folder(tmp_path):
    config = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    plan = make_plan(replace(VICUNA_7B, base=str(tmp_path)))
    assert plan.parameters == shape.from_config(config).num_parameters


def test_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="llama-13b"):
        make_plan(replace(VICUNA_7B, base="no-such-model"))


@pytest.mark.parametrize("wrong", [{"fill": 0.0}, {"conversations": 0}, {"tokens_per_s": -1.0}])
def test_impossible_figures_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        make_plan(replace(VICUNA_7B, **wrong))


@pytest.mark.parametrize(("positions", "rows"), [(32_768, 8192), (4096, 4096), (4096, 8192)])
def test_the_plan_takes_the_rows_that_the_run_takes(tmp_path, positions, rows):
    """A sliding window bounds neither: attention keeps to it in longer rows."""
    MistralConfig(
        sliding_window=4096, max_position_embeddings=positions, vocab_size=64, hidden_size=32,
        intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
    ).save_pretrained(tmp_path)  # fmt: skip
    said = []
    for check in (
        lambda: make_plan(replace(VICUNA_7B, base=str(tmp_path), max_length=rows)),
        lambda: load.read_config(str(tmp_path), RopeConfig(), rows),
    ):
        try:
            check()
            said.append("taken")
        except ConfigError as error:
            said.append(error.sentence)
    assert said[0] == said[1]
    assert (said[0] == "taken") == (rows <= positions)


def test_a_pack_that_the_run_would_refuse_is_refused(tmp_path: Path) -> None:
    uri = _write_pack(tmp_path, num_rows=30, max_length=64)
    with pytest.raises(InputError, match="holds rows of 64 tokens but max_length is 2048"):
        make_plan(replace(VICUNA_7B, data=uri))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mfu": 0.5, "tokens_per_s": 900.0}, "--mfu and --tokens-per-s each say how fast"),
        ({"measured": "run", "mfu": 0.5}, "--mfu and --measured each say"),
        ({"data": "pack", "conversations": 9}, "--conversations is not read where --data"),
        ({"data": "pack", "fill": 0.757}, "--fill is not read where --data"),
    ],
)
def test_two_answers_to_one_question_are_refused(changes, said) -> None:
    with pytest.raises(ConfigError, match=said):
        make_plan(replace(VICUNA_7B, **changes))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--max-length", "0"], "max_length is 0; expected at least 1"),
        (["--max-length", "-5"], "max_length is -5; expected at least 1"),
        (["--rope.kind", "linear", "--rope.factor", "nan"], "rope.factor is nan; with rope.kind"),
        (["--rope.kind", "yarn", "--rope.factor", "inf"], "rope.factor is inf; with rope.kind"),
    ],
)
def test_what_no_row_or_position_can_be_is_a_sentence(flags, said: str, capsys) -> None:
    assert run("apps.train", COMMANDS, ["plan", "--preset", "vicuna-7b", *flags]) == 2
    assert said in capsys.readouterr().err
