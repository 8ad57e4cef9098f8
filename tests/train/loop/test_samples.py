"""Answers while training are what the exported model would say, and change nothing of the run."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError
from apps.common.packs import open_pack
from apps.common.text.conversation import Message
from apps.common.text.tokenizer import load_tokenizer
from apps.train.batches.micro_batch import PackRows
from apps.train.config import ExportConfig, MetricsConfig, RunConfig
from apps.train.export import run_export
from apps.train.loop.record import Sample, read_metrics
from apps.train.loop.worker import work
from apps.train.preflight import prepare
from tests.train.ranks import mark, on_ranks

PROMPTS = ("Paris is", "2+2 makes four and the capital of France", "four")


def train(config: RunConfig) -> None:
    work(config, PackRows(open_pack(config.data).split("train"), 0), commit=mark(config))


def greedy(folder: str, run: RunConfig, prompt: str) -> str:
    """By transformers alone, without a cache or a batch."""
    pack, backend = open_pack(run.data).info, load_tokenizer(folder).backend
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = pack.template.render([Message("user", prompt)], add_generation_prompt=True).text
    ids = backend.encode(text, add_special_tokens=False).ids
    stops, new = pack.template.stop_token_ids(backend), list[int]()
    while len(new) < run.metrics.sample_tokens:
        with torch.no_grad():
            token = int(model(torch.tensor([[*ids, *new]])).logits[0, -1].argmax())
        if token in stops:
            break
        new.append(token)
    return backend.decode(new).strip()


@pytest.mark.parametrize("changes", [{}, {"wrap": "layer"}, {"adapter": "lora"}], ids=str)
def test_two_ranks_answer_what_the_exported_model_answers(
    small_run: RunConfig, tmp_path, changes
) -> None:
    asked = MetricsConfig(sample_every_steps=3, sample_prompts=PROMPTS, sample_tokens=8)
    config = replace(small_run, steps=4, precision="fp32", **changes)
    plain, sampled = (
        replace(config, out=str(tmp_path / name), metrics=metrics)
        for name, metrics in (("plain", MetricsConfig()), ("sampled", asked))
    )
    for run in (plain, sampled):
        prepare(run)
        on_ranks(2, train, run)
    records = read_metrics(sampled.out)
    assert [r["loss"] for r in records] == [r["loss"] for r in read_metrics(plain.out)]
    assert [r["step"] for r in records if "samples" in r] == [3, 4]
    out = str(tmp_path / "model")
    run_export(ExportConfig(run=sampled.out, out=out, dtype="fp32"), Reporter("json"))
    wanted = [Sample(prompt=p, answer=greedy(out, sampled, p)) for p in PROMPTS]
    assert records[-1]["samples"] == wanted
    assert records[-1]["sample_s"] > 0


def test_a_prompt_longer_than_the_rows_is_refused_before_anything_starts(
    small_run: RunConfig,
) -> None:
    asked = MetricsConfig(sample_every_steps=1, sample_tokens=4000)
    with pytest.raises(ConfigError, match=r"sample_tokens 4000 .* shorter prompt"):
        prepare(replace(small_run, metrics=asked))


def test_questions_that_are_not_there_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match="sample_prompts"):
        MetricsConfig(sample_every_steps=1, sample_prompts=())
