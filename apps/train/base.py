"""A small LLaMA and its tokenizer from plain text: a base to fine-tune where there is no other.

    python -m apps.train base --text FILE... --out MODEL --tokens 200000

Reads text files, one passage a line. Writes a Hugging Face folder: a byte-level BPE tokenizer with
the special tokens of LLaMA, the weights, and the chat template. One process, no Ray.
"""

import os
import tempfile

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files import lineage, storage
from apps.common.files.lock import alone_in
from apps.common.files.model_settings import TOKENIZER, TOKENIZER_CONFIG
from apps.common.text.template_check import check_template
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import Tokenizer, load_tokenizer
from apps.train.arguments import check_base
from apps.train.batches.micro_batch import ArrayRows
from apps.train.batches.order import order_of
from apps.train.batches.passages import read_passages, text_files
from apps.train.config import BaseConfig, OptimConfig, RunConfig
from apps.train.loop.loop import Hooks, Loop
from apps.train.loop.record import StepRecord
from apps.train.loop.worker import configure_torch, make_meter, make_strategy, process_group
from apps.train.model.load import full_weights
from apps.train.model.precision import resolve
from apps.train.model.publish import base_workspace, publish_base
from apps.train.parallel.strategy import Strategy

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
TEMPLATE = "vicuna-v1.1"


def run_base(config: BaseConfig, reporter: Reporter) -> None:
    """Train the tokenizer, then the model, and save both; config.json comes last."""
    check_base(config)
    transformers_logging.disable_progress_bar()
    passages = list(read_passages(config.text))
    if not passages:
        raise InputError(f"{', '.join(config.text)} holds no text; expected one passage a line.")
    inputs = {uri: storage.digest_file(uri) for uri in text_files(config.text)}
    tokenizer = train_tokenizer(passages, config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        saved = save_tokenizer(tokenizer, config, folder)
        check_template(load_template(folder, saved), saved)
    storage.claim(config.out)
    with alone_in(config.out), base_workspace(config.out) as start:
        save_tokenizer(tokenizer, config, start)
        rows = plain_rows(saved.backend, passages, config)
        save_random_model(config, saved.backend.get_vocab_size(), start)
        last = pretrain(config, rows, start, reporter)
        lineage.write(start, lineage.collect(inputs=inputs, config=config, loss=last["loss"]))
        publish_base(start, config)
    reporter.event("base.done", out=config.out, loss=last["loss"], seconds=last["seconds"])


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


def save_tokenizer(tokenizer: tokenizers.Tokenizer, config: BaseConfig, folder: str) -> Tokenizer:
    """Tokenizer and chat template, into a folder; what is read from there.

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
    saved = load_tokenizer(folder)
    write_template(folder, load_template(config.template or TEMPLATE, saved))
    return saved


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
