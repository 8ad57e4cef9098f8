"""Every family that is trained: ids, first loss, ten steps, resume and export as transformers'."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files.model_settings import weight_files
from apps.common.packs import open_pack
from apps.common.text.tokenizer import load_tokenizer
from apps.train.batches.micro_batch import PackRows
from apps.train.config import (
    CheckpointConfig,
    ExportConfig,
    MetricsConfig,
    RopeConfig,
    RunConfig,
)
from apps.train.export import run_export
from apps.train.loop.loop import Hooks
from apps.train.loop.record import read_metrics
from apps.train.loop.worker import process_group, work
from apps.train.model import load
from apps.train.model.attention import boundaries
from apps.train.model.loss import IGNORE
from apps.train.preflight import prepare
from apps.train.presets import debug
from tests.train import ranks, real_vllm
from tests.train.families import FAMILIES, ROW_TOKENS, conversations, save_family, save_pack, wide
from tests.train.ranks import on_ranks

NUM_STEPS = 10
NUM_GREEDY = 12


def train(config: RunConfig, stop_after: int | None = None) -> list[float]:
    """The losses of a run as its command takes it, on one rank; it may be asked to stop."""
    prepared = prepare(config)
    losses: list[float] = []
    hooks = Hooks(
        on_step=lambda record: losses.append(record["loss"]),
        stopped=lambda: len(losses) + 1 == stop_after,
    )
    rows = PackRows(prepared.pack.split("train"), prepared.pack.info.pad_id)
    with process_group():
        work(prepared.config, rows, rows, commit=prepared.commit, hooks=hooks)
    return losses


def config_of(base: str, pack: Path, out: Path, **changes: object) -> RunConfig:
    num_rows = open_pack(str(pack)).info.splits["train"].num_rows
    settings = {"steps": NUM_STEPS, "global_batch_rows": num_rows, "workers": 1} | changes
    return replace(
        debug(), base=base, data=str(pack), out=str(out), max_length=ROW_TOKENS,
        precision="fp32", checkpoint=CheckpointConfig(interval_steps=4, keep_last=3),
        metrics=MetricsConfig(val_rows=num_rows), **settings,
    )  # fmt: skip


def mean_loss(model: torch.nn.Module, segments: list[tuple[list[int], list[bool]]]) -> float:
    """transformers' own loss, conversation by conversation, over all supervised tokens."""
    total, count = 0.0, 0
    for ids, mask in segments:
        labels = [token if said else IGNORE for token, said in zip(ids, mask, strict=True)]
        supervised = sum(mask[1:])
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
        total, count = total + float(output.loss) * supervised, count + supervised
    return total / count


def reference(folder: str | Path) -> torch.nn.Module:
    """transformers' model of a folder, every weight taken; eager, because only that caps scores."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    return model.eval()


def greedy(folder: str, ids: list[int]) -> list[int]:
    """The likeliest tokens after `ids` by the model as it is trained."""
    model = load.build_on_meta(load.read_config(folder, RopeConfig(), ROW_TOKENS))
    load.materialize(model, torch.device("cpu"))
    load.load_weights(model, folder)
    model.eval()
    for _ in range(NUM_GREEDY):
        edges = boundaries([[len(ids)]], len(ids), torch.device("cpu"))
        with torch.no_grad():
            logits = model(
                input_ids=torch.tensor([ids]),
                position_ids=edges.position_ids_BT,
                packing=edges.packing,
            ).logits
        ids = [*ids, int(logits[0, -1].argmax())]
    return ids


EVERY_TIME = ("llama sharded", "mistral", "phi3", "gemma2", "gemma3", "qwen2", "qwen3-moe")
"""one of each kind; the others are near them, and run with the slow tests"""
NAMES = [
    name if name in EVERY_TIME else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES
]


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_trained_and_exported_as_transformers_has_it(tmp_path: Path, name: str) -> None:
    base = save_family(tmp_path / "base", FAMILIES[name])
    segments = save_pack(tmp_path / "pack", base)

    theirs = AutoTokenizer.from_pretrained(base)
    for (ids, mask), messages in zip(segments, conversations(24), strict=True):
        asked = theirs.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        assert ids == asked["input_ids"][:ROW_TOKENS]
        assert [int(said) for said in mask] == asked["assistant_masks"][:ROW_TOKENS]

    config = config_of(base, tmp_path / "pack", tmp_path / "run")
    losses = train(config)
    assert losses[0] == pytest.approx(mean_loss(reference(base), segments), abs=5e-6)
    assert len(losses) == NUM_STEPS and losses[-1] < losses[0]

    cut = config_of(base, tmp_path / "pack", tmp_path / "cut")
    before = train(cut, stop_after=6)
    assert before == losses[:6] and train(cut) == losses[6:]

    out = tmp_path / "model"
    export = ExportConfig(run=config.out, out=str(out), dtype="fp32")
    run_export(export, Reporter("json"))
    exported = reference(out)
    assert set(weight_files(out)) == set(weight_files(base))
    last = read_metrics(config.out)[-1]["val_loss"]
    assert mean_loss(exported, segments) == pytest.approx(last, abs=5e-6)
    assert (
        greedy(str(out), segments[0][0])
        == exported.generate(
            torch.tensor([segments[0][0]]),
            do_sample=False,
            max_new_tokens=NUM_GREEDY,
            eos_token_id=-1,
        )[0].tolist()
    )


@pytest.mark.slow
@pytest.mark.timeout(900)  # vLLM takes a minute to start, where nothing else runs
@real_vllm.needed
@pytest.mark.parametrize("name", ["mistral", "phi3", "qwen3", "gemma2", "gemma3"])
def test_vllm_loads_the_export_of_a_family_and_answers_as_transformers_does(
    tmp_path: Path, name: str
) -> None:
    base = save_family(tmp_path / "base", wide(FAMILIES[name]))
    segments = save_pack(tmp_path / "pack", base)
    config = config_of(base, tmp_path / "pack", tmp_path / "run", steps=1)
    train(config)  # more steps, and the tiny Gemma 2 only ends turns
    out = tmp_path / "model"
    run_export(ExportConfig(run=config.out, out=str(out), dtype="fp32"), Reporter("json"))
    prompt = segments[0][0][: len(segments[0][0]) // 2]
    asked = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": -1}
    expected = reference(out).generate(torch.tensor([prompt]), **asked)[0, len(prompt) :].tolist()
    assert len(set(expected)) > 3
    assert real_vllm.answer(out, prompt) == expected


@pytest.mark.parametrize(
    ("name", "changes"),
    [("mixtral", {}), ("gemma2", {}), ("gemma2", {"top_layers": 1, "keep_base": 1.0})],
    ids=str,
)
def test_two_ranks_compute_what_one_does(tmp_path: Path, name: str, changes: dict) -> None:
    """Experts are shared out by rows of their stacked tensor, buffers are made on every rank."""
    base = save_family(tmp_path / "base", FAMILIES[name])
    save_pack(tmp_path / "pack", base)
    losses = []
    for world_size in (1, 2):
        out = tmp_path / f"run{world_size}"
        changes |= {"steps": 3, "workers": world_size, "wrap": "layer"}
        config = config_of(base, tmp_path / "pack", out, **changes)
        records = on_ranks(world_size, ranks.train, config)[0]
        losses.append([record["loss"] for record in records])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_tokens_that_were_added_are_trained_and_exported(tmp_path: Path) -> None:
    base = save_family(tmp_path / "base", FAMILIES["llama"])
    file = json.loads((tmp_path / "base/tokenizer.json").read_text())
    flags = dict.fromkeys(("special", "normalized", "single_word", "lstrip", "rstrip"), False)
    size = load_tokenizer(base).backend.get_vocab_size()
    file["added_tokens"].append({"id": size, "content": "Paris", **flags})
    (tmp_path / "base/tokenizer.json").write_text(json.dumps(file))
    save_pack(tmp_path / "pack", base)
    config = config_of(base, tmp_path / "pack", tmp_path / "run")
    with pytest.raises(InputError, match=rf"has token id {size} but .* give --resize-embeddings"):
        prepare(config)
    losses = train(replace(config, resize_embeddings=True))
    assert losses[-1] < losses[0]
    out = tmp_path / "model"
    run_export(ExportConfig(run=config.out, out=str(out), dtype="fp32"), Reporter("json"))
    assert reference(out).config.vocab_size == size + 1
