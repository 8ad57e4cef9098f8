"""Tiny random models of every family that is trained, in the layouts that their folders have."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from apps.common.packs import fill_rows, write_pack
from apps.common.text.template_check import check_template
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import load_tokenizer
from tests import made

ROW_TOKENS = 128
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}
LLAMA_3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 1.5, 2.0, 4.0], "original_max_position_embeddings": 110,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "output_router_logits": False}
WORDS = ("Paris", "is", "the", "capital", "of", "naïve", "cafés", "2+2", "makes", "four\n")


def byte_level(family: str) -> Callable[[Path], str]:
    return lambda folder: made.byte_level_folder(folder, family)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of model folder."""

    model_type: str
    tokenizer: Callable[[Path], str] = made.sentencepiece_folder
    tokenizer_class: str = "LlamaTokenizer"
    template: str = "vicuna-v1.1"
    changes: Mapping[str, object] = field(default_factory=dict)
    shard: str = "5GB"
    """largest file of the saved weights"""


CHATML = byte_level("chatml")
FAMILIES = {
    "llama": Family(model_type="llama"),
    "llama tied": Family(model_type="llama", changes={"tie_word_embeddings": True}),
    "llama bias": Family(model_type="llama", changes={"attention_bias": True, "mlp_bias": True}),
    "llama3 rope": Family(
        model_type="llama", changes={"rope_parameters": LLAMA_3_ROPE}, template="llama-3",
        tokenizer=byte_level("llama-3"), tokenizer_class="PreTrainedTokenizerFast",
    ),
    "llama linear rope": Family(
        model_type="llama",
        changes={"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "llama sharded": Family(model_type="llama", shard="20KB"),
    "mistral": Family(model_type="mistral", changes={"sliding_window": 24}, template="llama-2"),
    "phi3": Family(
        model_type="phi3",
        changes={
            "rope_parameters": LONG_ROPE, "sliding_window": None,
            "original_max_position_embeddings": 110,  # some conversations are longer
        },
    ),
    "qwen2": Family(
        model_type="qwen2", tokenizer=CHATML, tokenizer_class="Qwen2Tokenizer", template="chatml",
        changes={"tie_word_embeddings": True},
    ),
    "qwen3": Family(
        model_type="qwen3", tokenizer=CHATML, tokenizer_class="Qwen2Tokenizer", template="chatml",
    ),
    "olmo2": Family(
        model_type="olmo2", tokenizer=CHATML, tokenizer_class="GPT2TokenizerFast",
        template="chatml",
    ),
    "smollm3": Family(
        model_type="smollm3", tokenizer=CHATML, tokenizer_class="PreTrainedTokenizerFast",
        template="chatml",
    ),
    "gemma2": Family(
        model_type="gemma2",
        changes={
            "sliding_window": 24, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0, "tie_word_embeddings": True,
        },
    ),
    "gemma3": Family(
        model_type="gemma3_text",
        changes={
            "sliding_window": 24, "query_pre_attn_scalar": 16, "tie_word_embeddings": True,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "mixtral": Family(
        model_type="mixtral", changes={**EXPERTS, "num_local_experts": 4, "sliding_window": None},
    ),
    "qwen3-moe": Family(
        model_type="qwen3_moe", tokenizer=CHATML, tokenizer_class="Qwen2Tokenizer",
        template="chatml",
        changes={**EXPERTS, "num_experts": 4, "moe_intermediate_size": 24, "mlp_only_layers": []},
    ),
}  # fmt: skip


def wide(family: Family) -> Family:
    """With heads of 32 numbers: vLLM's attention on a CPU knows no smaller ones."""
    sizes = {"hidden_size": 128, "intermediate_size": 192, "head_dim": 32}
    if family.changes.get("tie_word_embeddings"):  # or each token would be followed by itself
        sizes["initializer_range"] = 0.02
    changes = {**family.changes, **sizes}
    if "rope_parameters" in changes:  # a factor for each pair of a head's numbers
        factors = {"short_factor": [1.0 + 0.02 * i for i in range(16)]}
        factors["long_factor"] = [1.0 + 0.2 * i for i in range(16)]
        changes["rope_parameters"] = {**LONG_ROPE, **factors}
        # vLLM takes one kind of factors for every length, by the longest that it serves
        changes["original_max_position_embeddings"] = 4096
    return replace(family, changes=changes)


def save_family(folder: Path, family: Family) -> str:
    """The folder of a random model with norms that are not one."""
    family.tokenizer(folder)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    said["tokenizer_class"] = family.tokenizer_class
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    vocabulary = load_tokenizer(str(folder)).backend.get_vocab_size()
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": vocabulary, "pad_token_id": 0, **family.changes}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.model_type, **sizes))
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    model.save_pretrained(folder, max_shard_size=family.shard)
    tokenizer = load_tokenizer(str(folder))
    template = load_template(family.template, tokenizer)
    check_template(template, tokenizer)
    write_template(str(folder), template)
    return str(folder)


def conversations(count: int) -> list[list[dict[str, str]]]:
    draw = random.Random(0)
    made_up = []
    for _ in range(count):
        turns = []
        for _ in range(draw.randint(1, 3)):
            for role in ("user", "assistant"):
                text = " ".join(draw.choices(WORDS, k=draw.randint(1, 3))).strip()
                turns.append({"role": role, "content": text})
        made_up.append(turns)
    return made_up


def save_pack(folder: Path, base: str) -> list[tuple[list[int], list[bool]]]:
    """Rows of a few conversations each; ids and mask of every conversation, row by row."""
    tokenizer = load_tokenizer(base)
    template = load_template(base, tokenizer)
    rows, used = [[]], 0
    for messages in conversations(24):
        encoded = template.encode(tokenizer.backend, messages)
        segment = (encoded.ids[:ROW_TOKENS], encoded.mask[:ROW_TOKENS])
        if used + len(segment[0]) > ROW_TOKENS:
            rows.append([])
            used = 0
        rows[-1].append(segment)
        used += len(segment[0])
    packed = {"train": fill_rows(rows, ROW_TOKENS, tokenizer.pad_id)}
    write_pack(str(folder), packed, template, tokenizer.digest, tokenizer.pad_id)
    return [(ids.tolist(), mask.tolist()) for row in rows for ids, mask in row]
