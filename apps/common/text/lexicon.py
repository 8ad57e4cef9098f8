"""A lexical filter of inappropriate content: whole words and phrases with a severity.

It is a word list, not a judge: it finds the crudest content at hundreds of MB/s, misses whatever is
paraphrased, and flags some quotations. Reports that use it say so. The terms are ROT13-encoded so
that the source can be read and searched without meeting them.
"""

import codecs
import functools
from collections.abc import Iterator
from typing import NamedTuple, Protocol, cast

import re2  # pyright: ignore[reportMissingTypeStubs]

MAX_SEVERITY = 3


class Match(Protocol):
    """The part of re2's untyped match that is used here."""

    def group(self, number: int, /) -> str: ...


class Pattern(Protocol):
    """The part of re2's untyped pattern that is used here."""

    def search(self, text: str, /) -> Match | None: ...

    def finditer(self, text: str, /) -> Iterator[Match]: ...


_TERMS: dict[tuple[str, int], str] = {
    ("profanity", 1): (
        "shpx|shpxvat|shpxrq|shpxre|zbgureshpxre|fuvg|ohyyfuvg|nffubyr|ovgpu|onfgneq|"
        "qvpxurnq|jnaxre"
    ),
    ("sexual", 2): (
        "oybjwbo|unaqwbo|phzfubg|pernzcvr|tnatonat|qrrcguebng|evzwbo|qvyqb|ohgg cyht|"
        "znfgheongvat|betnfz|ure chffl|uvf pbpx|zl pbpx|jrg chffl|uneq pbpx|cbeabtencuvp|"
        "uragnv|ahqr cvpf|frkgvat|rebgvp ebyrcynl|rkcyvpvg frk fprar"
    ),
    ("violence", 2): ("orurnqvat ivqrb|gbegher cbea|fahss svyz|fxva gurz nyvir|tber ivqrb"),
    ("weapons", 3): (
        "ubj gb ohvyq n cvcr obzo|ubj gb znxr n cvcr obzo|ohvyq n cvcr obzo|"
        "znxr n obzo ng ubzr|ubzrznqr rkcybfvirf|ubj gb znxr ancnyz|flagurfvmr fneva|"
        "znxr areir tnf|phygvingr naguenk|hagenprnoyr tubfg tha"
    ),
    ("drugs", 3): (
        "pbbx zrgu|pbbx zrgunzcurgnzvar|flagurfvmr zrgunzcurgnzvar|znxr penpx pbpnvar|"
        "flagurfvmr sragnaly"
    ),
    ("self-harm", 3): (
        "ubj gb xvyy zlfrys|orfg jnl gb xvyy zlfrys|cnvayrff fhvpvqr zrgubq|"
        "ubj gb unat zlfrys|ceb-nan gvcf"
    ),
    ("minors", 3): (
        "puvyq cbea|puvyq cbeabtencul|haqrentr frk|cergrra ahqr|ybyvpba|fubgnpba|"
        "frk jvgu n zvabe|frk jvgu zvabef|wnvyonvg cvpf"
    ),
    ("hate", 3): (
        "avttre|avttref|snttbg|snttbgf|xvxr|xvxrf|fcvp|fcvpf|puvax|puvaxf|jrgonpx|jrgonpxf|"
        "enturnq|enturnqf|genaal|tnf gur wrjf|juvgr trabpvqr|urvy uvgyre|"
        "rguavp pyrnafvat vf tbbq|fhouhzna enpr"
    ),
    ("crime", 3): (
        "ubj gb ynhaqre zbarl|encr ure|encr uvz|encr snagnfl|ubj gb fgnyx fbzrbar|"
        "ubj gb cbvfba fbzrbar|uver n uvgzna|perqvg pneq fxvzzre|znxr pbhagresrvg zbarl"
    ),
}
"""(category, severity) -> terms. 1: crude; 2: explicit; 3: hateful, criminal or dangerous."""


class Hit(NamedTuple):
    term: str
    category: str
    severity: int


def find(text: str) -> list[Hit]:
    """Every term in the text, in the order of its place; `[]` for nearly every text."""
    pattern = _pattern()
    if pattern.search(text) is None:
        return []
    known = _by_term()
    terms = (" ".join(match.group(0).lower().split()) for match in pattern.finditer(text))
    return [known[term] for term in terms]


def severity(text: str) -> int:
    """The highest severity in the text; 0 when it has no term."""
    return max((hit.severity for hit in find(text)), default=0)


@functools.cache
def _by_term() -> dict[str, Hit]:
    return {
        term: Hit(term, category, level)
        for (category, level), encoded in _TERMS.items()
        for term in codecs.decode(encoded, "rot13").split("|")
    }


@functools.cache
def _pattern() -> Pattern:
    terms = sorted(_by_term(), key=lambda term: (-len(term), term))
    joined = "|".join(term.replace(" ", r"\s+") for term in terms)
    compiled = re2.compile(  # pyright: ignore[reportUnknownMemberType]
        rf"(?i)\b(?:{joined})\b"
    )
    return cast(Pattern, compiled)
