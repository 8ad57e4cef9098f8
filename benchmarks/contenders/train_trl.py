"""TRL's SFTTrainer with packing (best-fit decreasing, its default), in TRL's own environment.

Arguments as in train_padded.py, where --micro-rows counts packed rows. Run by train.py.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks.chat_lengths import CUT_TOKENS, conversations
from benchmarks.contenders.train_padded import StepTimes, arguments, load_model, parse, report


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(options)
    rows = options.micro_rows * options.accumulation * options.steps
    # Rows hold 1.3 conversations on average; some more, so that no step sees a row twice.
    items = conversations(int(rows * 1.4), model.config.vocab_size, options.scale)
    dataset = Dataset.from_dict(
        {"input_ids": [c.ids for c in items], "labels": [c.labels for c in items]}
    )
    times = StepTimes()
    config = SFTConfig(
        **arguments(options, options.out),
        packing=True,
        max_length=int(CUT_TOKENS * options.scale),
    )
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=dataset, processing_class=tokenizer(model)
    )
    trainer.add_callback(times)
    packed = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    tokens = packed / len(trainer.train_dataset) * rows
    trainer.train()
    report(times, tokens, options.steps)


def tokenizer(model: torch.nn.Module):
    """SFTTrainer insists on one, though the data is tokenized."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"t{n}": n for n in range(model.config.vocab_size)}
    backend = Tokenizer(models.WordLevel(words, unk_token="t0"))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="t0", eos_token="t2", unk_token="t0"
    )


if __name__ == "__main__":
    main()
