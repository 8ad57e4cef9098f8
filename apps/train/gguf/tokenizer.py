"""A GGUF file's vocabulary as `tokenizer.json`, and the texts of its special tokens.

Two kinds are known: byte-level BPE (`gpt2`), whose way of splitting text has a name in
`tokenizer.ggml.pre`, and SentencePiece's (`llama`), which keeps a score for each token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from apps.common.errors import InputError
from apps.train.gguf.metadata import GgufFile

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
"""gguf.TokenType"""
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_2 = _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
_NAMED = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufTokenizer:
    """A tokenizer and the settings of `tokenizer_config.json`."""

    backend: tokenizers.Tokenizer
    special_tokens: dict[str, str]
    """`bos_token`, `eos_token`, ... -> text"""
    end_of_turn: str | None
    """the token that ends an assistant turn, where it is not the end of text"""


def read_tokenizer(file: GgufFile) -> GgufTokenizer:
    """Raises InputError when the file's tokenizer is of a kind that is not known."""
    tokens: list[str] = file.required("tokenizer.ggml.tokens")
    types: list[int] = file.value("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    kind = file.required("tokenizer.ggml.model")
    if kind == "gpt2":
        merges = [tuple(merge.split(" ", 1)) for merge in file.required("tokenizer.ggml.merges")]
        backend = byte_level(_way_of_splitting(file), tokens, merges)
    elif kind == "llama":
        unknown = tokens[file.value("tokenizer.ggml.unknown_token_id", 0)]
        scores: list[float] = file.required("tokenizer.ggml.scores")
        prepends = file.value("tokenizer.ggml.add_space_prefix", True)
        backend = sentencepiece(tokens, scores, unknown, prepends=prepends)
    else:
        raise InputError(f"{file.path} has a {kind!r} tokenizer; expected gpt2 or llama.")
    for token, token_type in zip(tokens, types, strict=True):
        if token_type in (_CONTROL, _USER_DEFINED, _UNKNOWN):
            add_bare(backend, token, is_special=token_type != _USER_DEFINED)
    special = {
        name: tokens[index]
        for name, key in _NAMED.items()
        if (index := file.value(f"tokenizer.ggml.{key}_token_id")) is not None
    }
    _stand_around(file, backend, tokens, is_sentencepiece=kind == "llama")
    end_of_turn = file.value("tokenizer.ggml.eot_token_id")
    return GgufTokenizer(
        backend=backend,
        special_tokens=special,
        end_of_turn=None if end_of_turn is None else tokens[end_of_turn],
    )


def _stand_around(
    file: GgufFile, backend: tokenizers.Tokenizer, tokens: list[str], *, is_sentencepiece: bool
) -> None:
    """Have plain text begin and end with the tokens that the file says.

    Where it does not say, as llama.cpp (llama-vocab.cpp, llama_vocab::impl::load): SentencePiece's
    and Llama 3's texts begin with the first token, the others with none.
    """
    begins = is_sentencepiece or file.value("tokenizer.ggml.pre") == "llama-bpe"
    defaults = {"bos": begins, "eos": False}
    ids = {
        name: index
        for name, default in defaults.items()
        if file.value(f"tokenizer.ggml.add_{name}_token", default)
        and (index := file.value(f"tokenizer.ggml.{name}_token_id")) is not None
    }
    if ids:
        named = {name: tokens[index] for name, index in ids.items()}
        single = [named.get("bos"), "$A", named.get("eos")]
        pair = [named.get("bos"), "$A", named.get("eos"), named.get("bos"), "$B", named.get("eos")]
        backend.post_processor = processors.TemplateProcessing(
            single=[part for part in single if part],
            pair=[part for part in pair if part],
            special_tokens=[(tokens[index], index) for index in set(ids.values())],
        )


def add_bare(backend: tokenizers.Tokenizer, text: str, *, is_special: bool) -> None:
    """As llama.cpp has added tokens: found in the raw text, with no blank taken beside them."""
    backend.add_tokens([tokenizers.AddedToken(text, special=is_special, normalized=False)])


def _way_of_splitting(file: GgufFile) -> str:
    """llama.cpp's name for it."""
    name = file.value("tokenizer.ggml.pre")
    if name not in PRE_TOKENIZERS:
        said = "does not say how it splits text" if name is None else f"splits text by {name!r}"
        raise InputError(
            f"{file.path} {said}; expected tokenizer.ggml.pre to be one of "
            f"{', '.join(PRE_TOKENIZERS)}: take a file that a newer llama.cpp converted."
        )
    return name


def byte_level(
    pre: str, tokens: Sequence[str], merges: Sequence[tuple[str, str]]
) -> tokenizers.Tokenizer:
    """`pre` is llama.cpp's name for how text is split before merging."""
    vocabulary = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(vocabulary, list(merges), ignore_merges=pre == "llama-bpe")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = _pre_tokenizer(pre)
    backend.decoder = decoders.ByteLevel()
    return backend


PRE_TOKENIZERS = ("gpt-2", "smollm", "llama-bpe", "qwen2")
"""llama.cpp's names for ways of splitting"""


def _pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "gpt-2":
        return whole
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
    pattern = Regex(_LLAMA_3 if name == "llama-bpe" else _QWEN_2)
    split = pre_tokenizers.Split(pattern, "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, bytes_only])


def sentencepiece(
    tokens: Sequence[str], scores: Sequence[float], unknown: str, *, prepends: bool
) -> tokenizers.Tokenizer:
    """As transformers builds LLaMA's tokenizer: merges in the order of the joined token's score."""
    vocabulary = {token: index for index, token in enumerate(tokens)}
    found: list[tuple[float, int, str, str]] = []
    for token, index in vocabulary.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                found.append((-scores[index], vocabulary[left], left, right))
    merges = [(left, right) for _, _, left, right in sorted(found)]
    model = models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    blanks = [normalizers.Replace(" ", "▁")]
    before = [normalizers.Prepend("▁")] if prepends else []
    backend.normalizer = normalizers.Sequence([*before, *blanks])
    strips = [decoders.Strip(" ", 1, 0)] if prepends else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strips]
    )
    return backend
