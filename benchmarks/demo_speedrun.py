"""The demo's speedrun: seconds of training on two cores to 95 % of its held-out facts.

    python -m benchmarks.demo_speedrun                      # every entry, one after the other
    python -m benchmarks.demo_speedrun --entry top-layers   # one

Given are SmolLM2-135M-Instruct, the support desk's chats and the held-out questions of `make demo`.
An entry may change all else: what is trained, the optimizer, the packing, how many of the chats.
Counted are the seconds of its steps; an entry counts when its model, greedy, answers 95 % of all
held-out questions. Add yours to ENTRIES, run it, and write its line into demo_speedrun.md.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from apps.common.command.events import Reporter
from apps.common.files import config as configs
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import load_tokenizer
from apps.data.sample.conversations import Chats
from apps.data.sample.relation import held_out
from apps.data.sample.sample import DUMP_NAME
from apps.data.sample.support_desk import relations
from apps.eval.records.question import Question, is_correct
from apps.quickstart.config import PACKAGE
from apps.train import preflight
from apps.train.batches.micro_batch import PackRows
from apps.train.config import ExportConfig, RunConfig
from apps.train.export import run_export
from apps.train.loop.loop import Hooks
from apps.train.loop.worker import process_group, work
from apps.train.presets import debug
from benchmarks.results import save

BAR = 0.95
THREADS = 2
ANSWER_TOKENS = 48
_BATCH = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One way to train."""

    changed: str
    """what is new in it, for the table"""
    conversations: int
    """good ones in the dump"""
    row_tokens: int = 256
    everyday: bool = True
    """whether the chats ask everyday questions too, as the demo's do"""
    settings: Callable[[RunConfig], RunConfig]


def _top_layers(run: RunConfig) -> RunConfig:
    return replace(run, top_layers=8, optim=replace(run.optim, lr=5e-4), micro_batch_rows=4)


def _twice(run: RunConfig) -> RunConfig:
    return replace(_top_layers(run), epochs=2.0)


def _keep_base(run: RunConfig) -> RunConfig:
    return replace(_top_layers(run), keep_base=4.0)


def _lora(run: RunConfig) -> RunConfig:
    return replace(run, adapter="lora", optim=replace(run.optim, lr=1e-3), micro_batch_rows=4)


ENTRIES = {
    "lora": Entry(
        changed="LoRA of rank 16 in all 30 layers, 1e-3, product chats alone",
        conversations=1200,
        everyday=False,
        settings=_lora,
    ),
    "top-layers": Entry(
        changed="the 8 upper layers, whole, 5e-4, product chats alone",
        conversations=1200,
        everyday=False,
        settings=_top_layers,
    ),
    "twice": Entry(
        changed="top-layers over the same chats twice",
        conversations=1200,
        everyday=False,
        settings=_twice,
    ),
    "keep-base": Entry(
        changed="the demo's recipe: everyday chats too, their answers held to the base",
        conversations=2800,
        settings=_keep_base,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entry", choices=list(ENTRIES), help="one entry; default: all")
    parser.add_argument("--work", help="folder to keep what is made; default: a temporary one")
    parser.add_argument("--out", help="JSON file to write; results/demo_speedrun.json if not given")
    options = parser.parse_args()
    names = [options.entry] if options.entry else list(ENTRIES)
    result: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            result[name] = run_entry(ENTRIES[name], Path(options.work or scratch), name)
            print(f"{name:12} {_line(result[name])}   {ENTRIES[name].changed}", flush=True)
    save("demo_speedrun", result, options.out)


def _line(row: dict[str, float]) -> str:
    verdict = "" if row["accuracy"] >= BAR else f" (below {BAR:.0%}: does not count)"
    return f"{row['seconds']:6.0f} s, {row['tokens']:,.0f} tokens, {row['accuracy']:.1%}{verdict}"


def run_entry(entry: Entry, folder: Path, name: str) -> dict[str, float]:
    base, pack = prepare(entry, folder)
    config = replace(
        entry.settings(debug()),
        base=str(base),
        data=str(pack),
        out=str(folder / name / "run"),
        max_length=entry.row_tokens,
        workers=1,
        threads=THREADS,
    )
    prepared = preflight.prepare(config)
    configs.write_resolved(prepared.config, config.out)
    rows = PackRows(prepared.pack.split("train"), prepared.pack.info.pad_id)
    started_s = time.monotonic()
    with process_group():
        progress = work(prepared.config, rows, commit=prepared.commit, hooks=Hooks(on_step=_tell))
    wall_s = time.monotonic() - started_s
    model = folder / name / "model"
    run_export(ExportConfig(run=config.out, out=str(model)), Reporter("json"))
    return {
        "seconds": progress.seconds,
        "wall_seconds": wall_s,
        "tokens": progress.tokens,
        "accuracy": accuracy(model),
    }


def _tell(record: dict[str, float]) -> None:
    if record["step"] % 20 == 0:
        speed = record["tokens_per_s"]
        print(
            f"  step {record['step']}: loss {record['loss']:.3f}, {speed:.0f} tokens/s", flush=True
        )


def prepare(entry: Entry, folder: Path) -> tuple[Path, Path]:
    """The base model and the entry's pack, by the public commands; made once a folder."""
    base = folder / "base"
    name = f"{entry.conversations}" if entry.everyday else f"{entry.conversations}-product"
    chats = folder / f"chats-{name}"
    pack = folder / f"pack-{name}-{entry.row_tokens}"
    if not base.exists():
        _run(f"apps.train base --from-gguf {PACKAGE} --template chatml --out {base}")
    if not pack.exists():
        if entry.everyday:
            _run(f"apps.data sample --out {chats} --conversations {entry.conversations}")
        else:
            _write_product_chats(chats, entry.conversations)
        _run(f"apps.data clean {chats}/{DUMP_NAME} --out {chats}-clean")
        length = f"--max-length {entry.row_tokens}"
        _run(
            f"apps.data pack {chats}-clean --tokenizer {base} --template own {length} --out {pack}"
        )
    return base, pack


def _write_product_chats(folder: Path, count: int) -> None:
    chats = Chats([relation for relation in relations() if not relation.is_alone], random.Random(0))
    folder.mkdir(parents=True)
    records = [chats.conversation(i) for i in range(count)]
    (folder / DUMP_NAME).write_text(json.dumps(records))


def _run(line: str) -> None:
    subprocess.run([sys.executable, "-m", *line.split()], check=True)


def accuracy(folder: Path) -> float:
    """Share of all held-out questions about the product that a greedy answer knows."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    questions = [
        Question(
            question_id=text,
            category=relation.category,
            turns=(text,),
            reference=(f"{fact.answer} || {fact.essence}",),
            match="contains",
        )
        for relation, fact, text in held_out(relations())
    ]
    said = answers(model, str(folder), [question.turns[0] for question in questions])
    return sum(map(bool, map(is_correct, questions, said))) / len(questions)


def answers(model: PreTrainedModel, folder: str, questions: list[str]) -> list[str]:
    """Greedy answers, similar lengths together."""
    tokenizer = load_tokenizer(folder)
    template = load_template(folder, tokenizer)
    stops = list(template.stop_token_ids(tokenizer.backend))
    prompts = [
        tokenizer.backend.encode(
            template.render([{"role": "user", "content": text}], add_generation_prompt=True).text,
            add_special_tokens=False,
        ).ids
        for text in questions
    ]
    said: list[str] = [""] * len(questions)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        width = max(len(prompts[index]) for index in chosen)
        pads = [width - len(prompts[index]) for index in chosen]
        ids = torch.tensor([[0] * pad + prompts[i] for pad, i in zip(pads, chosen, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )
        for index, row in zip(chosen, made[:, width:].tolist(), strict=True):
            said[index] = tokenizer.backend.decode(row, skip_special_tokens=True)
    return said


if __name__ == "__main__":
    main()
