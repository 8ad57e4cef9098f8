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
import sys
import unicodedata
from collections.abc import Iterable

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
_IGNORED = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
"""Drawn as nothing: whether a text has them is not what it says."""


def words(text: str) -> list[str]:
    """The words in their order, casefolded and in NFC, without punctuation."""
    if text.isascii():
        return text.encode().translate(_ASCII_LOWERED).decode().split()
    runs = _runs().findall(_folded(text))
    if _unspaced().search(text) is None:
        return runs
    return [word for run in runs for word in _grams(run)]


def num_words(text: str) -> int:
    """How many words a reader would count; scripts without blanks by their usual word length.

    `num_words("烤三十分钟")` is 3: five characters, two a word, rounded up.
    """
    if text.isascii() or _unspaced().search(text) is None:
        return len(words(text))
    runs = _runs().findall(_folded(text))
    return sum(-(-len(_letters(run)) // size) if (size := _gram(run)) else 1 for run in runs)


def jaccard(first: Iterable[str], second: Iterable[str]) -> float:
    """Of all distinct words, the share (0-1) that both have; 0 when there are none."""
    ours, theirs = set(first), set(second)
    return len(ours & theirs) / max(1, len(ours | theirs))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.translate(_IGNORED).casefold())


def _grams(run: str) -> list[str]:
    """`烤三十` gives 烤三 and 三十; what is shorter than a gram is one; a spaced word is itself."""
    size = _gram(run)
    if not size:
        return [run]
    letters = _letters(run)
    return ["".join(letters[i : i + size]) for i in range(max(1, len(letters) - size + 1))]


def _gram(run: str) -> int:
    """Letters in a gram of this run's script; 0 where blanks part the words."""
    if _unspaced().match(run) is None:
        return 0
    code = ord(run[0])
    is_cjk = any(first <= code <= last for first, last in _CJK)
    return _CJK_GRAM if is_cjk else _SOUTH_EAST_ASIAN_GRAM


def _letters(run: str) -> list[str]:
    """Letters with the vowels and tones that stand on them."""
    return _lettered().findall(run)


@functools.cache
def _runs() -> re.Pattern[str]:
    """Runs of one kind: of CJK, of South-East Asian letters, or of all others."""
    cjk, asian = _class_of(_CJK), _class_of(_SOUTH_EAST_ASIAN)
    others = _class_of(_all_but((*_CJK, *_SOUTH_EAST_ASIAN)))
    return re.compile(f"[{others}]+|[{cjk}]+|[{asian}]+")


@functools.cache
def _unspaced() -> re.Pattern[str]:
    return re.compile(f"[{_class_of((*_CJK, *_SOUTH_EAST_ASIAN))}]")


@functools.cache
def _lettered() -> re.Pattern[str]:
    marks = _class_of(((0, sys.maxunicode),), "M")
    return re.compile(f"[^{marks}]?[{marks}]+|[^{marks}]")


def _all_but(spans: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    starts = [0, *(last + 1 for _, last in sorted(spans))]
    stops = [*(first - 1 for first, _ in sorted(spans)), sys.maxunicode]
    return tuple(zip(starts, stops, strict=True))


@functools.cache
def _class_of(spans: tuple[tuple[int, int], ...], kinds: str = "LMN") -> str:
    """A regular expression's class of the letters, marks and numbers in some spans.

    `\\w` will not do: it lacks the vowel signs of Hindi and Thai, which are marks.
    """
    parts: list[str] = []
    for first, last in spans:
        start = None
        for code in range(first, min(last, 0x3FFFF) + 2):
            is_in = code <= last and (
                code == ord("_") or unicodedata.category(chr(code))[0] in kinds
            )
            if is_in and start is None:
                start = code
            elif not is_in and start is not None:
                parts.append(f"\\U{start:08x}-\\U{code - 1:08x}")
                start = None
    return "".join(parts)
