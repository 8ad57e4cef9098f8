"""Every layout of a model folder's tokenizer gives the ids that AutoTokenizer gives."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import (
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS,
    TOKENIZER_MAPPING_NAMES,
    tokenizer_class_from_name,
)
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from apps.common.errors import InputError
from apps.common.text.tokenizer import load_tokenizer
from apps.common.text.tokenizer_class import (
    AS_IT_IS,
    CLASS_OF_TYPE,
    REBUILT,
    STATED_CLASS_IS_WRONG,
    UNKNOWN,
)
from tests import made

TEXTS = (
    "Hello, what is naïve code?\n\n```python\n    x = 1  # one\n```\n",
    "<s> A chat USER: q ASSISTANT: a</s>USER: two</s>",
    "  two spaces,\ttabs\r\n 你好 🦙 don't 12345 <think>x</think>",
    "<|im_start|>user\nq<|im_end|>\n<|endoftext|>",
)
SENTENCEPIECE = {
    "llama": ("llama", "LlamaTokenizer"),
    "llama, Fast": ("llama", "LlamaTokenizerFast"),
    "llama, no class": ("llama", None),
    "mistral": ("mistral", "LlamaTokenizer"),
    "mixtral": ("mixtral", "LlamaTokenizerFast"),
    "phi3": ("phi3", "LlamaTokenizer"),
    "gemma2": ("gemma2", "GemmaTokenizer"),
    "gemma3_text": ("gemma3_text", "GemmaTokenizerFast"),
    "smollm3": ("smollm3", "PreTrainedTokenizerFast"),
    "no model": (None, "LlamaTokenizer"),
}
BYTE_LEVEL = {
    "llama-3": ("llama", "PreTrainedTokenizerFast", "llama-3"),
    "qwen2": ("qwen2", "Qwen2Tokenizer", "chatml"),
    "qwen2, of another class": ("qwen2", "LlamaTokenizerFast", "chatml"),
    "qwen3": ("qwen3", "Qwen2TokenizerFast", "chatml"),
    "qwen3, as it is": ("qwen3", "PreTrainedTokenizerFast", "chatml"),
    "qwen3_moe, no class": ("qwen3_moe", None, "chatml"),
    "smollm": ("llama", "GPT2Tokenizer", "chatml"),
    "olmo2": ("olmo2", "GPT2TokenizerFast", "chatml"),
    "gpt_neox": ("gpt_neox", "GPTNeoXTokenizerFast", "chatml"),
    "a class nobody knows": ("llama", "OwnTokenizer", "llama-3"),
    "llama-3 under LLaMA's class": ("llama", "LlamaTokenizerFast", "llama-3"),
}


def describe(folder: Path, model_type: str | None, cls: str | None, **config: object) -> str:
    """Give a tokenizer's folder the class and model type, and settings that folders have."""
    said = json.loads((folder / "tokenizer_config.json").read_text())
    said = {key: value for key, value in said.items() if key != "tokenizer_class"} | config
    said |= {"tokenizer_class": cls} if cls else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    if model_type is not None:
        model = {"model_type": model_type, "vocab_size": 500, "transformers_version": "5.17.0"}
        (folder / "config.json").write_text(json.dumps(model))
    return str(folder)


def check(folder: str) -> None:
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = ours.backend.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ours.backend.decode(ids, False) == theirs._tokenizer.decode(ids, False)
    named = {name: str(token) for name, token in theirs.special_tokens_map.items()}
    assert {k: v for k, v in named.items() if isinstance(v, str) and k in ours.special_tokens} == (
        ours.special_tokens
    )
    assert ours.backend.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize("case", SENTENCEPIECE)
@pytest.mark.parametrize("legacy", [True, False])
def test_sentencepiece_layouts(tmp_path: Path, case: str, legacy: bool) -> None:
    made.sentencepiece_folder(tmp_path)
    check(describe(tmp_path, *SENTENCEPIECE[case], legacy=legacy))


@pytest.mark.parametrize("case", BYTE_LEVEL)
def test_byte_level_layouts(tmp_path: Path, case: str) -> None:
    model_type, cls, family = BYTE_LEVEL[case]
    made.byte_level_folder(tmp_path, family)
    check(describe(tmp_path, model_type, cls))


@pytest.mark.parametrize("cls", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("place", ["config", "file", "special list", "map"])
def test_tokens_added_anywhere_get_the_same_ids(tmp_path: Path, cls: str, place: str) -> None:
    made.sentencepiece_folder(tmp_path)
    texts = {"<think>": False, "<|im_start|>": True, "<|im_end|>": True}
    if place == "config":
        there = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
        listed = {str(t.pop("id")): t for t in there}
        for i, (text, special) in enumerate(texts.items(), start=400):
            flags = {"lstrip": False, "rstrip": True, "normalized": False, "single_word": False}
            listed[str(i)] = {"content": text, "special": special, **flags}
        describe(tmp_path, "llama", cls, added_tokens_decoder=listed)
    elif place == "file":
        numbers = {text: i for i, text in enumerate(texts, start=400)}
        (tmp_path / "added_tokens.json").write_text(json.dumps(numbers))
        describe(tmp_path, "llama", cls)
    elif place == "special list":
        describe(tmp_path, "llama", cls, additional_special_tokens=list(texts))
    else:
        named = {"eos_token": {"content": "<|im_end|>", "lstrip": False}, "pad_token": "<pad>"}
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(named))
        describe(tmp_path, "llama", cls)
    check(str(tmp_path))


def test_a_class_that_is_not_known_here_is_refused(tmp_path: Path) -> None:
    made.byte_level_folder(tmp_path)
    describe(tmp_path, "cohere", "CohereTokenizerFast")
    with pytest.raises(InputError, match=r"tokenizer_class CohereTokenizer makes .* expected one"):
        load_tokenizer(str(tmp_path))


def test_a_vocabulary_that_is_no_bpe_is_refused_under_such_a_class(tmp_path: Path) -> None:
    made.byte_level_folder(tmp_path)
    file = json.loads((tmp_path / "tokenizer.json").read_text())
    file["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    describe(tmp_path, "llama", "LlamaTokenizer")
    with pytest.raises(InputError, match=r"needs a BPE .* holds a Word"):
        load_tokenizer(str(tmp_path))


def rebuilds(name: str) -> bool:
    cls = tokenizer_class_from_name(name)
    return (
        cls is not None
        and cls is not TokenizersBackend
        and issubclass(cls, TokenizersBackend)
        and "__init__" in cls.__dict__
    )


def test_the_tables_are_those_of_the_installed_transformers() -> None:
    for model_type, name in CLASS_OF_TYPE.items():
        theirs = TOKENIZER_MAPPING_NAMES.get(model_type)
        assert theirs in (name, "MistralCommonBackend" if name == AS_IT_IS else name), model_type
        wrong = model_type in MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
        assert name == AS_IT_IS or wrong == (model_type in STATED_CLASS_IS_WRONG), model_type
    assert all(rebuilds(name) for name in (*REBUILT, *UNKNOWN))


def test_every_decoder_s_class_is_in_the_tables() -> None:
    """Those of encoders that can also be run as decoders are nobody's chat model."""
    known = set(REBUILT) | set(UNKNOWN)
    for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        name = TOKENIZER_MAPPING_NAMES.get(model_type)
        if name in known or name == AS_IT_IS:
            assert model_type in CLASS_OF_TYPE
    assert {"llama", "smollm3"}.isdisjoint(TOKENIZER_MAPPING_NAMES)
