"""FastChat's chain in one process, for benchmarks/pack.py; runs in FastChat's own environment.

python benchmarks/pack_fastchat.py DUMP TOKENIZER MAX_LENGTH    -> one line of JSON
python benchmarks/pack_fastchat.py convert TOKENIZER 0          -> writes its tokenizer.json
"""

import json
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
import transformers


def convert(folder: str) -> None:
    transformers.AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)


def measure(dump: str, folder: str, max_length: int) -> dict:
    from fastchat.data import clean_sharegpt, split_long_conversation
    from fastchat.train import train

    torch.set_num_threads(1)
    train.rank0_print = lambda *args: None
    records = json.loads(Path(dump).read_text())
    started = time.process_time()
    cleaned = []
    for record in records:
        converted, code = clean_sharegpt.clean_html_one_sample(record)
        if code == 0:
            cleaned.append(converted)
    clean_s = time.process_time() - started
    slow = transformers.AutoTokenizer.from_pretrained(
        folder, use_fast=False, model_max_length=max_length, padding_side="right"
    )
    slow.pad_token = slow.unk_token
    split_long_conversation.tokenizer = slow
    split_long_conversation.max_length = max_length
    started = time.process_time()
    segments = []
    for record in cleaned:
        segments += split_long_conversation.split_one_sample(record)
    segments = [one for one in segments if len(one["conversations"]) >= 2]
    split_s = time.process_time() - started
    started = time.process_time()
    tokens = supervised = 0
    for segment in segments:
        rows = train.preprocess([segment["conversations"]], slow)
        tokens += int(rows["attention_mask"].sum())
        supervised += int((rows["labels"] != -100).sum())
    tokenize_s = time.process_time() - started
    return {
        "seconds": {"clean_s": clean_s, "split_s": split_s, "tokenize_s": tokenize_s},
        "conversations": len(cleaned),
        "tokens": tokens,
        "supervised_tokens": supervised,
    }


if __name__ == "__main__":
    what, folder, number = sys.argv[1:]
    with redirect_stdout(sys.stderr):
        found = convert(folder) if what == "convert" else measure(what, folder, int(number))
    print(json.dumps(found))
