"""A small LLaMA and its tokenizer from plain text: a base to fine-tune where there is no other.

    python -m apps.train base --text FILE... --out MODEL --tokens 200000

Reads text files, one passage a line. Writes a Hugging Face folder: a byte-level BPE tokenizer with
the special tokens of LLaMA, the weights, and the chat template. One process, no Ray.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from apps.common.command.events import Reporter
from apps.common.errors import InputError, NotFoundError
from apps.common.files import config as configs
from apps.common.files import lineage, storage
from apps.common.files.model_settings import CONFIG, TOKENIZER, TOKENIZER_CONFIG
from apps.common.text.template_check import check_template
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import load_tokenizer
from apps.train.batches.micro_batch import ArrayRows
from apps.train.batches.order import order_of
from apps.train.config import BaseConfig, OptimConfig, RunConfig
from apps.train.loop.loop import Hooks, Loop
from apps.train.loop.record import StepRecord
from apps.train.loop.worker import configure_torch, make_meter, make_strategy, process_group
from apps.train.model.load import full_weights
from apps.train.model.precision import resolve
from apps.train.own_folder import check_base_folder
from apps.train.parallel.strategy import Strategy

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
TEMPLATE = "vicuna-v1.1"


def run_base(config: BaseConfig, reporter: Reporter) -> None:
    """Train the tokenizer, then the model, and save both; config.json comes last."""
    check_base_folder(config.out)
    transformers_logging.disable_progress_bar()
    passages = list(read_passages(config.text))
    if not passages:
        raise InputError(f"{', '.join(config.text)} holds no text; expected one passage a line.")
    with tempfile.TemporaryDirectory() as start:
        save_tokenizer(train_tokenizer(passages, config.vocab_size), config, start)
        tokenizer = load_tokenizer(start)
        check_template(load_template(start, tokenizer), tokenizer)
        rows = plain_rows(tokenizer.backend, passages, config)
        save_random_model(config, tokenizer.backend.get_vocab_size(), start)
        storage.claim(config.out)
        last = pretrain(config, rows, start, reporter)
        Path(config.out, CONFIG).unlink(
            missing_ok=True
        )  # of an earlier run: no model until the end
        configs.write_resolved(config, config.out)
        for name in sorted(os.listdir(start), key=lambda name: name == CONFIG):
            shutil.copyfile(os.path.join(start, name), os.path.join(config.out, name))
    inputs = {uri: storage.digest_file(uri) for uri in text_files(config.text)}
    lineage.write(config.out, lineage.collect(inputs=inputs, config=config, loss=last["loss"]))
    reporter.event("base.done", out=config.out, loss=last["loss"], seconds=last["seconds"])


def text_files(sources: Iterable[str]) -> list[str]:
    """Files of the given files and folders, sorted within a folder."""
    files: list[str] = []
    for uri in sources:
        if storage.is_dir(uri):
            files += [storage.join(uri, name) for name in storage.list_dir(uri)]
        elif storage.exists(uri):
            files.append(uri)
        else:
            raise NotFoundError(f"Text file {uri} does not exist; expected a file or folder.")
    return files


def read_passages(sources: Iterable[str]) -> Iterator[str]:
    """One passage a line; of .jsonl files the field `text`."""
    for uri in text_files(sources):
        for number, line in enumerate(storage.read_bytes(uri).splitlines(), start=1):
            try:
                text = _passage(line, is_json=uri.endswith(".jsonl"))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"Line {number} of {uri} cannot be read ({error!r}); expected UTF-8 text, or "
                    'in .jsonl files an object {"text": "..."} a line.'
                ) from error
            if text.strip():
                yield text


def _passage(line: bytes, *, is_json: bool) -> str:
    text = line.decode("utf-8")
    if not is_json or not text.strip():
        return text
    passage = json.loads(text)["text"]
    if not isinstance(passage, str):
        raise TypeError(f"its text is {passage!r:.40}")
    return passage


def train_tokenizer(passages: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Byte-level BPE; it can spell every text, so there is no unknown token in practice."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[UNK, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(passages, trainer)
    return tokenizer


def save_tokenizer(tokenizer: tokenizers.Tokenizer, config: BaseConfig, folder: str) -> None:
    """Tokenizer and chat template, into a folder.

    (The class must not be LlamaTokenizer: transformers 5 rebuilds that one as SentencePiece.)
    """
    tokenizer.save(os.path.join(folder, TOKENIZER))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNK,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": UNK,
        "model_max_length": config.max_position,
        "clean_up_tokenization_spaces": False,
    }
    storage.write_json(os.path.join(folder, TOKENIZER_CONFIG), settings)
    write_template(folder, load_template(config.template or TEMPLATE, load_tokenizer(folder)))


def plain_rows(
    tokenizer: tokenizers.Tokenizer, passages: list[str], config: BaseConfig
) -> ArrayRows:
    """Passages, each between <s> and </s>, laid end to end and cut into rows."""
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    order = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(passages))
    encoded = tokenizer.encode_batch(passages, add_special_tokens=False)
    stream = np.concatenate([np.array([bos, *encoded[i].ids, eos]) for i in order])
    if len(stream) < config.row_tokens:
        stream = np.tile(stream, -(-config.row_tokens // len(stream)))
    num_rows = len(stream) // config.row_tokens
    ids = stream[: num_rows * config.row_tokens].reshape(num_rows, config.row_tokens)
    return ArrayRows(ids, np.ones(ids.shape, bool), [[config.row_tokens]] * num_rows)


def save_random_model(config: BaseConfig, vocab_size: int, folder: str) -> None:
    """The untrained model, in the layout that training starts from."""
    torch.manual_seed(config.seed)
    shape = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.ffn_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.max_position,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)


def pretrain(config: BaseConfig, rows: ArrayRows, start: str, reporter: Reporter) -> StepRecord:
    """Train the model in `start`, in place, on all of `rows`; returns the last step's record."""
    steps = max(config.tokens // (config.batch_rows * config.row_tokens), 1)
    run = RunConfig(
        base=start,
        data="",
        out=config.out,
        steps=steps,
        global_batch_rows=config.batch_rows,
        micro_batch_rows=config.batch_rows,
        threads=config.threads,
        device="cpu",
        precision=resolve(config.precision, "cpu"),
        seed=config.seed,
        deterministic=True,
        wrap="root",
        optim=OptimConfig(
            lr=config.lr, beta2=0.95, schedule="linear", warmup_fraction=0.05, final_fraction=0.02
        ),
    )
    configure_torch(run)
    records: list[StepRecord] = []
    with process_group(), reporter.progress("base", total=steps, unit="steps") as bar:

        def on_step(record: StepRecord) -> None:
            records[:] = [record]
            bar.advance(1, loss=record["loss"], tokens_per_s=round(record["tokens_per_s"]))

        strategy = make_strategy(run, torch.device("cpu"), config.row_tokens)
        Loop(
            config=run,
            order=order_of(
                num_rows=len(rows),
                global_batch_rows=config.batch_rows,
                seed=config.seed,
                epochs=1.0,
                steps=steps,
            ),
            train_rows=rows,
            val_rows=None,
            strategy=strategy,
            meter=make_meter(run, strategy, config.row_tokens),
            hooks=Hooks(on_step=on_step),
        ).run()
        save_model(strategy, start)
    return records[0]


def save_model(strategy: Strategy, folder: str) -> None:
    """Weights as fp32 safetensors, with generation settings that stop at </s>."""
    weights = dict(full_weights(strategy.causal_lm))
    saved = LlamaForCausalLM(strategy.causal_lm.config)
    saved.load_state_dict(weights, strict=False)
    saved.config.use_cache = True
    saved.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    saved.save_pretrained(folder)
