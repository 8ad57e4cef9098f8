"""How judges write the numbers of one scale.

A sign makes a number that no scale has: it is read, so that it is not taken for another. What a
number is out of, and a scale named before it, are read too, and must be the scale asked for.
"""

import functools
import re
from dataclasses import dataclass

from apps.eval.protocols.form import Form


def _denominator(group: str) -> str:
    return rf"(?P<{group}>\d+(?:\.\d+)?)"


def _out_of(group: str) -> str:
    """`/10`, `out of 10`, or nothing"""
    return rf"(?:\s*(?:/|\bout\s+of\b)\s*{_denominator(group)})?"


# `8 of 10`, `8 (out of 10)`, `4 on a 5-point scale`, `4 on a scale from 1 to 5`
_OUT_OF_ANY = (
    r"(?:\s*\(?(?:/|\b(?:out\s+of|of|on\s+an?(?:\s+scale)?)\b)\s*(?:(?:of|from)\s+)?"
    rf"(?:\d+\s*(?:-|to)\s*)?{_denominator('of')})?"
)
# `Score (1-10): 8`, `Rating (out of 10): 8`
_SCALE = (
    r"(?:\s*[(\[]\s*(?:-?\d+(?:\.\d+)?\s*(?:-|to)|out\s+of|of|/)\s*"
    rf"{_denominator('scale')}\s*[)\]])?"
)
# Neither more digits nor a range, nor a fraction that was not understood.
_END = r"(?![\d.,]*\d)(?!\s*(?:-|\bto\b|\bor\b)\s*\d)(?!\s*\(?(?:/|\b(?:out\s+)?of\b))"


@dataclass(frozen=True, kw_only=True, slots=True)
class Patterns:
    """Groups: `first` and `second`, or `number`; what they are out of; a `scale` named before."""

    pair_line: re.Pattern[str]
    """`9 8.5`, `9, 8`, `8/10 7/10`, `**(9, 8)**`, `Scores: 9 8`, alone on a line"""
    labelled: re.Pattern[str]
    """`Assistant 1: 8/10`, `**Assistant 2's score:** 7`; a count of mistakes is none"""
    in_brackets: re.Pattern[str]
    """(9, 8)"""
    bracketed: re.Pattern[str]
    """[[8]], [[rating: 8/10]]"""
    word: re.Pattern[str]
    """`Rating: 8`, `a final score of 8`"""
    overall: re.Pattern[str]
    """`Overall: 4`"""
    tagged: re.Pattern[str]
    """what may follow a tag: `**6**`, `[6]`, `Rating: 8/10`"""
    closing: re.Pattern[str]
    """`Final rating: 8`, alone on a line"""


def patterns(form: Form) -> Patterns:
    """As many digits as the scale has, three at least: longer numbers are years and the like."""
    num_digits = len(str(int(max(abs(form.low), abs(form.high)))))
    return _patterns(max(3, num_digits), form.high == 100)


@functools.lru_cache(maxsize=64)
def _patterns(num_digits: int, is_percent: bool) -> Patterns:
    digits = rf"\d{{1,{num_digits}}}"
    first, second = (
        rf"(?<![\d.-])(?P<{group}>-?{digits}(?:\.\d+)?)" + _out_of(f"{group}_of")
        for group in ("first", "second")
    )
    rating = rf"(?<![\d.-])(?P<number>-?(?:\d{{1,3}}(?:,\d{{3}})+|{digits}(?:[.,]\d+)?|\.\d+))"
    end = _END if is_percent else rf"{_END}(?!\s*%)"
    called = (
        r"(?:(?:(?:my|the)\s+)?(?:(?:final|overall)\s+)?(?:rating|score|grade|verdict)|overall)\b"
    )
    made = {
        "pair_line": rf"^\W*(?:(?:the )?(?:final|overall)?\s?(?:scores?)?{_SCALE}\W{{0,4}})?"
        rf"{first}(?:\s*[,;|&]\s*|\s+and\s+|\s+){second}\W*$",
        "labelled": r"(?:assistant|answer|response|chatbot)\W{0,3}(?P<who>1|2|a|b)\b(?:['\u2019]s)?"
        rf"\W{{0,3}}(?:score|rating)?\W{{0,3}}[:=|]\W{{0,4}}{first}(?![\d.]*\d)"
        r"(?=\s*(?:[\n(.,;*_)\]|]|points?\b|$))",
        "in_brackets": rf"[(\[]\s*{first}\s*,\s*{second}\s*[)\]]",
        "bracketed": rf"\[\[\s*(?:rating\s*:?\s*)?{rating}{_out_of('of')}\s*\]\]",
        "word": rf"(?:\b(?P<final>final|overall)\s+)?\b(?:rating|score)\b{_SCALE}"
        rf"(?P<link>\W{{0,6}}(?:is\W{{0,3}}|of\W{{0,3}})?){rating}{_OUT_OF_ANY}{end}",
        "overall": rf"\boverall{_SCALE}\W{{0,4}}[:=]\W{{0,4}}{rating}{_OUT_OF_ANY}{end}"
        r"(?=[^\w\n]*(?:$|[\n.,;(]))",
        "tagged": rf"\A\W*(?:{called}{_SCALE}\W{{0,9}}(?:is\W{{0,9}})?)?(?:\\boxed)?\W{{0,9}}"
        rf"{rating}{_OUT_OF_ANY}{end}(?!\w)",
        "closing": rf"\A\W*{called}{_SCALE}\W{{0,6}}(?:is\W{{0,3}})?(?:\\boxed\W)?"
        rf"{rating}{_OUT_OF_ANY}{end}\W*\Z",
    }
    return Patterns(**{name: re.compile(text, re.IGNORECASE) for name, text in made.items()})
