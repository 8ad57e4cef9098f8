"""Where the tokens of a text begin, without asking the tokenizer to keep track of it.

`tokenizers` spends a quarter of its time on offsets. Most vocabularies spell out the text: the
bytes of the tokens, laid end to end, are the bytes of the text. Where they are, that gives every
offset; where they are not (a normalizer rewrote the text), the tokenizer is asked again.

    text    n  é  e              bytes   6e  c3 a9  65
    tokens  "n<c3>"  "<a9>e"     begin at bytes 0 and 2, in the text: 0 and the middle of é
    TokenEdges keeps [0, 3]:     2 x the character, and 1 more for "inside of it"
    at(1) -> (1, True)           the first token from é on is token 1; token 0 straddles é's start
    at(2) -> (2, True)           behind é comes no new token: token 1 holds its end and the e
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import tokenizers

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_WORD_START = "\u2581"
_MIN_TRIES = 16


class TokenEdges:
    """Where each token of one text begins.

    A byte-level token can begin in the middle of a character. So places are counted in half
    characters: 2 * n is where character n begins, 2 * n + 1 is somewhere inside of it.
    """

    def __init__(self, starts: npt.NDArray[np.int64], num_chars: int) -> None:
        """`starts` are the tokens' places in half characters, rising."""
        self._starts = starts
        self._num_chars = num_chars

    def at(self, char: int) -> tuple[int, bool]:
        """Index of the first token that begins at or after `char`; whether one straddles it."""
        token = int(np.searchsorted(self._starts, 2 * char))
        end = 2 * self._num_chars
        begin = int(self._starts[token]) if token < len(self._starts) else end
        return token, begin != 2 * char and char < self._num_chars


class Speller:
    """What each token of a vocabulary spells."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        vocabulary = backend.get_vocab(with_added_tokens=True)
        added = {i: token.content for i, token in backend.get_added_tokens_decoder().items()}
        is_byte_level = "ByteLevel(" in repr(backend.pre_tokenizer)
        spell = _spell_byte_level if is_byte_level else _spell
        self._bytes = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for text, i in vocabulary.items():
            self._bytes[i] = added[i].encode() if i in added else spell(text)
        self._lengths = np.array([len(one) for one in self._bytes], np.int64)
        self._tried = self._missed = 0

    def encode_batch(
        self, texts: Sequence[str]
    ) -> list[tuple[npt.NDArray[np.int32], TokenEdges | tokenizers.Encoding]]:
        """Ids of each text, and where they begin."""
        if self._tried >= _MIN_TRIES and 2 * self._missed > self._tried:
            return [_kept(one) for one in self._asked(texts)]
        fast = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        spelled = [
            self._spelled(encoding.ids, text) for encoding, text in zip(fast, texts, strict=True)
        ]
        missed = [i for i, one in enumerate(spelled) if one is None]
        self._tried += len(spelled)
        self._missed += len(missed)
        asked = iter(self._asked([texts[i] for i in missed]))
        return [one if one is not None else _kept(next(asked)) for one in spelled]

    def _asked(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        return self._backend.encode_batch(list(texts), add_special_tokens=False)

    def _spelled(
        self, ids: Sequence[int], text: str
    ) -> tuple[npt.NDArray[np.int32], TokenEdges] | None:
        """None when the tokens do not spell the text."""
        table = self._bytes
        spelled, raw = b"".join([table[i] for i in ids]), text.encode("utf-8", "replace")
        num_added = len(spelled) - len(raw)
        if num_added not in (0, 1) or (b" " * num_added) + raw != spelled:
            return None
        array = np.array(ids, np.int32)
        ends = np.cumsum(self._lengths[array])
        starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        starts = np.maximum(starts - num_added, 0)
        return array, TokenEdges(_doubled(starts, raw, text), len(text))


def _kept(
    encoding: tokenizers.Encoding,
) -> tuple[npt.NDArray[np.int32], tokenizers.Encoding]:
    return np.array(encoding.ids, np.int32), encoding


def _doubled(starts: npt.NDArray[np.int64], raw: bytes, text: str) -> npt.NDArray[np.int64]:
    """Places in bytes as places in half characters, see TokenEdges."""
    if len(raw) == len(text):
        return 2 * starts
    begins = (np.frombuffer(raw, np.uint8) & 0xC0) != 0x80
    inside = np.append(~begins, False)
    chars = np.append(np.cumsum(begins) - 1, len(text))
    return 2 * chars[starts] + inside[starts]


def _spell(token: str) -> bytes:
    """Of SentencePiece's vocabularies: word starts are blanks, `<0x0A>` is one byte."""
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(_WORD_START, " ").encode()


def _spell_byte_level(token: str) -> bytes:
    """Of GPT-2's: a printable character for each byte."""
    table = bytes_of_byte_level()
    if all(char in table for char in token):
        return bytes(table[char] for char in token)
    return token.encode()


@lru_cache(maxsize=1)
def bytes_of_byte_level() -> dict[str, int]:
    """The byte behind each printable stand-in of a byte-level vocabulary, such as `Ġ` for a space.

    The inverse of bytes_to_unicode in openai/gpt-2's encoder.py.
    """
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(shown)]
    return {chr(byte): byte for byte in shown} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }


@lru_cache(maxsize=4)
def speller(backend: tokenizers.Tokenizer) -> Speller:
    return Speller(backend)
