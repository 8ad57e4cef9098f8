"""Which tokenizer class transformers gives a folder, and what that class makes of tokenizer.json.

Most folders' tokenizer.json is taken as it is. Some classes take only its vocabulary and merges and
build the rest anew (their `__init__` in transformers/models/*/tokenization_*.py); a folder of such
a class must be rebuilt here in the same way, or its ids differ from everybody else's. The choice
follows AutoTokenizer.from_pretrained (transformers/models/auto/tokenization_auto.py) of the pinned
version; a test compares both tables with the installed one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict, cast

from apps.common.errors import InputError

AS_IT_IS = "TokenizersBackend"
"""the class that takes tokenizer.json as it is"""

_TYPES_OF_CLASS = {
    AS_IT_IS: "bigbird_pegasus deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 ernie4_5 "
    "ernie4_5_moe flex_olmo fuyu glm glm4 glm4_moe glm4_moe_lite got_ocr2 gpt_bigcode granite "
    "granitemoe granitemoehybrid granitemoeshared hyperclovax jamba kimi_linear mimo_v2_flash "
    "minicpm3 minimax_m2 ministral ministral3 mistral mixtral nemotron olmo2 olmo3 olmo_hybrid "
    "persimmon phi3 phimoe stablelm xlm-roberta-xl",
    "CodeLlamaTokenizer": "code_llama",
    "CohereTokenizer": "cohere cohere2",
    "GPT2Tokenizer": "codegen dbrx emu3 gpt2 gpt_neo gptj jais2 opt phi starcoder2",
    "GPTNeoXTokenizer": "falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm",
    "GemmaTokenizer": "gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma zaya",
    "Qwen2Tokenizer": "qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next",
    "Qwen3_5Tokenizer": "qwen3_5 qwen3_5_moe qwen3_5_text qwen4_exp",
}
CLASS_OF_TYPE = {kind: cls for cls, types in _TYPES_OF_CLASS.items() for kind in types.split()}
"""decoder-only models for which transformers has a class of its own; llama has none"""
STATED_CLASS_IS_WRONG = ("qwen2",)
"""model types whose folders often name a wrong class: transformers takes the one above"""


Json = Mapping[str, object]
"""an object of tokenizer.json or tokenizer_config.json"""
Component = dict[str, object]
"""a part of a tokenizer, in the words of the `tokenizers` package"""


class Parts(TypedDict):
    """What a class builds anew."""

    model: Component
    """settings of the BPE model, without vocabulary and merges"""
    normalizer: Component | None
    pre_tokenizer: Component
    decoder: Component


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a class makes of a vocabulary."""

    parts: Callable[[Json], Parts]
    """from tokenizer_config.json"""
    special_tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    """named tokens where tokenizer_config.json does not name them"""


def text_of(token: object) -> str:
    """A token's text, in the short or the long way of writing it."""
    return token if isinstance(token, str) else cast(dict[str, str], token)["content"]


_BYTE_FALLBACK: list[Component] = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
_BYTE_LEVEL_DECODER: Component = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}
_BPE: Component = {
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}
_AFFIXES = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""of transformers/models/qwen2/tokenization_qwen2.py"""


def _llama(config: Json) -> Parts:
    has_space = config.get("add_prefix_space") is not False
    scheme = "always" if config.get("legacy", False) else "first"
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if has_space else []
    return {
        "model": {**_BPE, "fuse_unk": True, "byte_fallback": True},
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": scheme if has_space else "never",
            "split": False,
        },
        "decoder": {"type": "Sequence", "decoders": [*_BYTE_FALLBACK, *strip]},
    }


def _gemma(config: Json) -> Parts:
    unknown = text_of(config.get("unk_token", "<unk>"))
    return {
        "model": {**_BPE, "fuse_unk": True, "byte_fallback": True, "unk_token": unknown},
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "decoder": {"type": "Sequence", "decoders": _BYTE_FALLBACK},
    }


def _byte_level(config: Json, *, use_regex: bool) -> Component:
    return {
        "type": "ByteLevel",
        "add_prefix_space": bool(config.get("add_prefix_space", False)),
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _qwen2(config: Json) -> Parts:
    split: Component = {
        "type": "Split",
        "pattern": {"Regex": _QWEN_SPLIT},
        "behavior": "Isolated",
        "invert": False,
    }
    pieces = [split, _byte_level(config, use_regex=False)]
    return {
        "model": {**_BPE, **_AFFIXES},
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pieces},
        "decoder": _BYTE_LEVEL_DECODER,
    }


def _gpt2(config: Json) -> Parts:
    return {
        "model": {**_BPE, **_AFFIXES},
        "normalizer": None,
        "pre_tokenizer": _byte_level(config, use_regex=True),
        "decoder": _BYTE_LEVEL_DECODER,
    }


def _gpt_neox(config: Json) -> Parts:
    return {**_gpt2(config), "normalizer": {"type": "NFC"}}


_END = "<|endoftext|>"
_OF_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_OF_GPT2 = {"bos_token": _END, "eos_token": _END, "unk_token": _END}
_OF_GEMMA = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
REBUILT: Mapping[str, Rebuilt] = {
    "LlamaTokenizer": Rebuilt(_llama, _OF_LLAMA),
    "GemmaTokenizer": Rebuilt(_gemma, _OF_GEMMA),
    "Qwen2Tokenizer": Rebuilt(_qwen2, {"eos_token": _END, "unk_token": _END, "pad_token": _END}),
    "GPT2Tokenizer": Rebuilt(_gpt2, _OF_GPT2),
    "GPTNeoXTokenizer": Rebuilt(_gpt_neox, {**_OF_GPT2, "pad_token": "<|padding|>"}),
}
UNKNOWN = ("CodeLlamaTokenizer", "CohereTokenizer", "Qwen3_5Tokenizer")
"""classes that rebuild in a way that is not known here"""


def class_of(tokenizer_config: Json, model_config: Json) -> str:
    """Name of the class that AutoTokenizer chooses; AS_IT_IS for all that keep tokenizer.json."""
    model_type = str(model_config.get("model_type", ""))
    own = CLASS_OF_TYPE.get(model_type)
    key = "tokenizer_class"
    stated = cast(str | None, tokenizer_config.get(key) or model_config.get(key))
    chosen = (stated or "").removesuffix("Fast") or own or AS_IT_IS
    if own is not None and (own == AS_IT_IS or model_type in STATED_CLASS_IS_WRONG):
        chosen = own
    if chosen in UNKNOWN:
        raise InputError(
            f"tokenizer_class {chosen} makes a tokenizer of its own, in a way that is not known "
            f"here; expected one of {', '.join(REBUILT)}, or PreTrainedTokenizerFast for a "
            "tokenizer.json that is used as it is."
        )
    return chosen if chosen in REBUILT else AS_IT_IS


def rebuilt(description: Json, chosen: str, tokenizer_config: Json) -> Component:
    """tokenizer.json as the class makes it, its added tokens left out for the caller to add."""
    parts = REBUILT[chosen].parts(tokenizer_config)
    model = cast(Component, description["model"])
    if model.get("type") != "BPE":
        raise InputError(
            f"tokenizer_class {chosen} needs a BPE vocabulary, and tokenizer.json holds a "
            f"{model.get('type')} one; expected PreTrainedTokenizerFast there."
        )
    kept = {name: model[name] for name in ("type", "vocab", "merges")}
    return {**description, **parts, "model": {**kept, **parts["model"]}, "added_tokens": []}
