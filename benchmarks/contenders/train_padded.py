"""The published recipe: transformers' Trainer, every conversation padded to the maximum length.

    python -m benchmarks.contenders.train_padded --model FOLDER --micro-rows 4 --out SCRATCH

Prints one JSON line with the seconds and real tokens of each step. Run by train.py, gpu_train.py.
"""

import argparse
import json
import time
from itertools import pairwise

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.chat_lengths import CUT_TOKENS, Conversation, conversations


class StepTimes(TrainerCallback):
    """Wall-clock time at the end of every optimizer step."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends_s.append(time.monotonic())


class Padded(torch.utils.data.Dataset):
    """Conversations as FastChat prepares them: `padding="max_length"`."""

    def __init__(self, items: list[Conversation], max_length: int) -> None:
        self.items, self.max_length = items, max_length

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids, labels = self.items[index]
        tail = self.max_length - len(ids)
        return {
            "input_ids": torch.tensor(ids + [0] * tail),
            "labels": torch.tensor(labels + [-100] * tail),
            "attention_mask": torch.tensor([1] * len(ids) + [0] * tail),
        }


def arguments(options, out: str, **changes) -> dict:
    """Training arguments that all Trainer-based contenders share."""
    return {
        "output_dir": out,
        "per_device_train_batch_size": options.micro_rows,
        "gradient_accumulation_steps": options.accumulation,
        "max_steps": options.steps,
        "learning_rate": 2e-5,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 1.0,
        "bf16": options.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": options.gradient_checkpointing,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": 0,
        **changes,
    }


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder with config.json (and weights)")
    parser.add_argument("--scale", type=float, default=1.0, help="length scale, 1 is 2,048 tokens")
    parser.add_argument("--micro-rows", type=int, default=4, help="conversations a forward pass")
    parser.add_argument("--accumulation", type=int, default=4, help="forward passes a step")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 takes all")
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast")
    parser.add_argument("--bf16-weights", action="store_true", help="weights and moments in bf16")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--random-weights", action="store_true", help="do not read weights")
    parser.add_argument("--out", required=True, help="scratch folder")
    return parser.parse_args(argv)


def load_model(options: argparse.Namespace) -> torch.nn.Module:
    """The model in fp32, as a Trainer with bf16 autocast wants it, unless bf16 is asked for."""
    dtype = torch.bfloat16 if options.bf16_weights else torch.float32
    if not options.random_weights:
        return AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        config = AutoConfig.from_pretrained(options.model)
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def report(times: StepTimes, num_tokens: float, steps: int) -> dict:
    """One JSON line: the time of each step but the first, and real tokens a step on average."""
    step_s = [b - a for a, b in pairwise(times.ends_s)]
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    step_tokens = [num_tokens / steps] * len(step_s)
    found = {"step_s": step_s, "step_tokens": step_tokens, "memory_bytes": peak}
    print(json.dumps(found), flush=True)
    return found


def main(argv: list[str] | None = None) -> dict:
    options = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(options)
    count = options.micro_rows * options.accumulation * options.steps
    items = conversations(count, model.config.vocab_size, options.scale)
    times = StepTimes()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments(options, options.out)),
        train_dataset=Padded(items, int(CUT_TOKENS * options.scale)),
        callbacks=[times],
    )
    trainer.train()
    return report(times, sum(len(c.ids) for c in items), options.steps)


if __name__ == "__main__":
    main()
