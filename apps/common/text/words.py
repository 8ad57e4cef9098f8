"""Words of a text in every script, for whatever compares or counts words.

    words("Don't bake it at 230°C!")   ["don", "t", "bake", "it", "at", "230", "c"]
    words("烤三十分钟 with GPT-4")        ["烤三", "三十", "十分", "分钟", "with", "gpt", "4"]

Scripts that put blanks between words are split there and at punctuation. Chinese, Japanese, Thai,
Lao, Khmer, Burmese and their relatives write without blanks: each run of them gives its overlapping
character n-grams, so that one changed character changes a few words and not all of them. Text is
compared in one case and in NFC (Unicode Standard Annex 15).
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

_CJK = (
    (0x3005, 0x3007),
    (0x3040, 0x312F),
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA48F),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
"""Han, kana, Bopomofo and Yi: a word has about two characters."""
_SOUTH_EAST_ASIAN = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x1950, 0x19DF),
    (0x1A20, 0x1AAF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAADF),
)
"""Thai, Lao, Burmese, Khmer, Tai Le and Tai Tham: a word has about three letters, marks apart."""
_CJK_GRAM = 2
_SOUTH_EAST_ASIAN_GRAM = 3

_ASCII_WORD = re.compile("[0-9A-Za-z_]")
_ASCII_LOWERED = bytes(
    ord(chr(code).lower()) if _ASCII_WORD.match(chr(code)) else ord(" ") for code in range(256)
)
_IGNORED = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
"""Drawn as nothing: whether a text has them is not what it says."""


class WordSpan(NamedTuple):
    """A word, and where it stands in its text: `text[start:end]`."""

    word: str
    start: int
    end: int


def words(text: str) -> list[str]:
    """The words in their order, casefolded and in NFC, without punctuation."""
    if text.isascii():
        return text.encode().translate(_ASCII_LOWERED).decode().split()
    folded = _folded(text)
    runs = _runs().findall(folded)
    if _unspaced().search(folded) is None:
        return runs
    return [word for run in runs for part in _parts(run) for word in _grams(part)]


def word_spans(text: str) -> list[WordSpan]:
    """The words of a text in NFC, as `words` gives them, with where each one stands.

    `word_spans("Öl, 烤三十")` is [("öl", 0, 2), ("烤三", 4, 6), ("三十", 5, 7)].
    """
    folded, starts, ends = _folded_with_origins(text)
    return [
        WordSpan(folded[a:b], starts[a], ends[b - 1])
        for run in _runs().finditer(folded)
        for part in (
            [run] if run[0].isascii() else _kinds().finditer(folded, run.start(), run.end())
        )
        for a, b in _gram_spans(part[0], part.start())
    ]


def num_words(text: str) -> int:
    """How many words a reader would count; scripts without blanks by their usual word length.

    `num_words("烤三十分钟")` is 3: five characters, two a word, rounded up.
    """
    if text.isascii() or _unspaced().search(text) is None:
        return len(words(text))
    parts = [part for run in _runs().findall(_folded(text)) for part in _parts(run)]
    return sum(-(-len(_letters(part)) // size) if (size := _gram(part)) else 1 for part in parts)


def jaccard(first: Iterable[str], second: Iterable[str]) -> float:
    """Of all distinct words, the share (0-1) that both have; 0 when there are none."""
    ours, theirs = set(first), set(second)
    return len(ours & theirs) / max(1, len(ours | theirs))


def _folded(text: str) -> str:
    for char in _IGNORED:
        if char in text:
            text = text.replace(char, "")
    return unicodedata.normalize("NFC", text.casefold())


def _folded_with_origins(text: str) -> tuple[str, Sequence[int], Sequence[int]]:
    """`_folded(text)`, and where in `text` each of its characters begins and ends.

    "Ǆß" gives "ǆss" with starts 0, 1, 1 and ends 1, 2, 2.
    """
    if text.isascii():
        return text.lower(), range(len(text)), range(1, len(text) + 1)
    kept = [at for at, char in enumerate(text) if char not in _IGNORED]
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for letter in _lettered().finditer("".join(text[at] for at in kept)):
        piece = _folded(letter[0])
        pieces.append(piece)
        starts += [kept[letter.start()]] * len(piece)
        ends += [kept[letter.end() - 1] + 1] * len(piece)
    return "".join(pieces), starts, ends


def _parts(run: str) -> list[str]:
    """`用gpt4烤` as 用, gpt4 and 烤: one kind of script each."""
    return [run] if run.isascii() else _kinds().findall(run)


def _grams(part: str) -> list[str]:
    """`烤三十` gives 烤三 and 三十; what is shorter than a gram is one; a spaced word is itself."""
    size = _gram(part)
    if len(part) <= size or not size:
        return [part]
    if size == _CJK_GRAM:
        return list(map(str.__add__, part, part[1:]))
    letters = _letters(part)
    return ["".join(letters[i : i + size]) for i in range(max(1, len(letters) - size + 1))]


def _gram_spans(part: str, offset: int) -> Iterator[tuple[int, int]]:
    """Where the words of `_grams(part)` begin and end, `offset` characters further on."""
    size = _gram(part)
    if len(part) <= size or not size:
        yield offset, offset + len(part)
        return
    letters = list(part) if size == _CJK_GRAM else _letters(part)
    edges = list(accumulate(map(len, letters), initial=offset))
    for first in range(max(1, len(letters) - size + 1)):
        yield edges[first], edges[min(first + size, len(letters))]


def _gram(part: str) -> int:
    """Letters in a gram of this script; 0 where blanks part the words."""
    if part.isascii() or _unspaced().match(part) is None:
        return 0
    is_cjk = any(first <= ord(part[0]) <= last for first, last in _CJK)
    return _CJK_GRAM if is_cjk else _SOUTH_EAST_ASIAN_GRAM


def _letters(part: str) -> list[str]:
    """Letters with the vowels and tones that stand on them."""
    return _lettered().findall(part)


@functools.cache
def _runs() -> re.Pattern[str]:
    """`\\w` alone would end a word at each vowel sign of Hindi or Thai: they are marks."""
    return re.compile(rf"[\w{_marks()}]+")


@functools.cache
def _kinds() -> re.Pattern[str]:
    """Runs of CJK, of South-East Asian letters, or of all others."""
    cjk, asian = _class_of(_CJK), _class_of(_SOUTH_EAST_ASIAN)
    return re.compile(f"[^{cjk}{asian}]+|[{cjk}]+|[{asian}]+")


@functools.cache
def _unspaced() -> re.Pattern[str]:
    return re.compile(f"[{_class_of((*_CJK, *_SOUTH_EAST_ASIAN))}]")


@functools.cache
def _lettered() -> re.Pattern[str]:
    return re.compile(f"[^{_marks()}]?[{_marks()}]+|[^{_marks()}]")


@functools.cache
def _marks() -> str:
    """All combining marks of the Basic Multilingual Plane, as a class of a regular expression."""
    marks = [code for code in range(0x10000) if unicodedata.category(chr(code))[0] == "M"]
    starts = [code for code in marks if unicodedata.category(chr(code - 1))[0] != "M"]
    stops = [code for code in marks if unicodedata.category(chr(code + 1))[0] != "M"]
    return _class_of(tuple(zip(starts, stops, strict=True)))


def _class_of(spans: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in spans)
