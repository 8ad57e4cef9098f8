"""Whether llama.cpp, given a written file, would split text into the ids of the folder's tokenizer.

Its rules, as a `tokenizers` backend: control and user-defined tokens are found in the raw text. No
blank is taken beside them. The text between two of them is split on its own (llama-vocab.cpp,
tokenizer_st_partition). Two differences are let pass. llama.cpp does not normalize to NFC, and text
is nearly always NFC already. And LLaMA's class here puts no blank before a text that begins with
one, which llama.cpp does; a chat template that leads to such texts is refused.
"""

from collections.abc import Iterable, Sequence

import tokenizers

from apps.common.text.templates import load_template
from apps.common.text.tokenizer import Tokenizer
from apps.train.gguf.tokenizer import add_bare

_PROBES = (
    "Hello world, it's 12345 o'clock; we'll see.  Two spaces",
    "naïve Grüße 你好 世界 🦙 ABCdef 3.14 don't I'M",
    "def f(x):\n    return x\n\n\n\tx = [1, 2]  # end \n ",
    "\n\nWord\n\nIs (x)!?\n\nso\n",
    "x  \n y\r\n\r\nz \uff11\uff12 \ufb01n ...\nEnd 1234567 ",
)
"""Texts that the known ways of splitting split differently, and that no normalizer but NFC keeps"""
_CHAT = (
    {"role": "user", "content": "What is 2+2?\n\nIs it 12345?"},
    {"role": "assistant", "content": "Four, it's 4."},
    {"role": "user", "content": "And 3?"},
)


def probes(folder: str, tokenizer: Tokenizer) -> list[str]:
    """A chat in the folder's template, plain texts, and texts around each special token."""
    chat = load_template(folder, tokenizer).render(_CHAT, add_generation_prompt=True).text
    added = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values()]
    around = [f"{text}a {text}b\n\nWord {text}\n\n{text}c" for text in added[:_MAX_ADDED]]
    return [chat, *_PROBES, *around]


_MAX_ADDED = 512
"""some tokenizers hold thousands of reserved tokens, all of one kind"""


def add_tokens(candidate: tokenizers.Tokenizer, tokenizer: Tokenizer) -> None:
    """The folder's added tokens as llama.cpp sees them: bare texts."""
    for token in tokenizer.backend.get_added_tokens_decoder().values():
        add_bare(candidate, token.content, is_special=token.special)


def differing(
    candidate: tokenizers.Tokenizer, tokenizer: Tokenizer, texts: Iterable[str]
) -> str | None:
    """The first text whose ids differ."""
    for text in texts:
        wanted = tokenizer.backend.encode(text, add_special_tokens=False).ids
        if candidate.encode(text, add_special_tokens=False).ids != wanted:
            return text
    return None


def splits_alike(candidate: tokenizers.Tokenizer, tokenizer: Tokenizer) -> bool:
    """Whether plain text falls into the same words: a small vocabulary hides it from the ids."""
    pieces = [_words(each, _PROBES) for each in (candidate, tokenizer.backend)]
    return pieces[0] == pieces[1]


def _words(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[str]]:
    splitter = backend.pre_tokenizer
    if splitter is None:
        return []
    return [[word for word, _ in splitter.pre_tokenize_str(text)] for text in texts]


def joins_alike(candidate: tokenizers.Tokenizer, tokenizer: Tokenizer) -> bool:
    """Whether each token of the vocabulary, met as a word, has the same ids: `ignore_merges`."""
    models = candidate.model, tokenizer.backend.model
    added = tokenizer.backend.get_added_tokens_decoder()
    words = tokenizer.backend.get_vocab(with_added_tokens=False)
    return all(
        [token.id for token in models[0].tokenize(text)]
        == [token.id for token in models[1].tokenize(text)]
        for text, index in words.items()
        if index not in added
    )
