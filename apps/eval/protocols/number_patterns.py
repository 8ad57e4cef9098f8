"""How judges write the numbers of one scale.

A sign makes a number that no scale has: it is read, so that it is not taken for another. What a
number is out of, and a scale named before it, are read too, and must be the scale asked for.
"""

import functools
import re
from dataclasses import dataclass

from apps.eval.protocols import words
from apps.eval.protocols.form import Form


def _denominator(group: str) -> str:
    return rf"(?P<{group}>\d+(?:\.\d+)?)"


_POINTS = rf"(?:\s{{0,9}}(?:{words.POINTS}))?"


def _out_of(group: str) -> str:
    """`/10`, `out of 10`, or nothing"""
    return rf"{_POINTS}(?:\s*(?:/|\b(?:{words.OUT_OF})\b)\s*{_denominator(group)}{_POINTS})?"


_RANGE = rf"(?:[-~\u301c]|(?<!\s)[\u2014\u2015](?!\s)|\b(?:{words.TO})\b|到|至|から|或)"
# `8 of 10`, `8 (out of 10)`, `4 on a 5-point scale`, `4 on a scale from 1 to 5`, `4 (max. 5)`
_OUT_OF_ANY = (
    rf"{_POINTS}(?:[\s,*_]{{0,9}}\(?(?:/|\b(?:{words.OUT_OF}|on\s+an?(?:\s+scale)?)\b"
    rf"|(?:{words.AT_MOST})\W?)\s*(?:(?:of|from)\s+)?"
    rf"(?:\d+\s*{_RANGE}\s*)?{_denominator('of')}{_POINTS}\)?)?"
)
# `Score (1-10): 8`, `Rating (out of 10): 8`
_SCALE = (
    rf"(?:\s*[(\[]\s*(?:-?\d+(?:\.\d+)?\s*{_RANGE}|{words.OUT_OF}|/|{words.AT_MOST})\s*"
    rf"{_denominator('scale')}{_POINTS}\s*[)\]])?"
)
# Neither more digits nor a range, nor a fraction that was not understood.
_END = rf"(?![^\w\s]*\d)(?!\s*{_RANGE}\s*\d)(?!\s*\(?(?:/|\b(?:out\s+)?of\b))"


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
    noted: re.Pattern[str]
    """`Note : 8`, which is a remark where the text has a rating too"""


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
    # A comma is a decimal sign too, unless it alone parts the two: `8,5 7,5`, `9,8`.
    left = first.replace(r"\.\d+", r"\.\d+|,\d+(?=\s|[;|&/]|,\s)", 1)
    right = second.replace(r"\.\d+", r"\.\d+|,\d+(?<!,\d,\d)(?<!,\d\d,\d)", 1)
    one = first.replace(r"\.\d+", r"[.,]\d+", 1)
    rating = rf"(?<![\d.-])(?P<number>-?(?:\d{{1,3}}(?:,\d{{3}})+|{digits}(?:[.,]\d+)?|\.\d+))"
    end = _END if is_percent else rf"{_END}(?!\s*%)"
    # Bounded blanks, and none before the first word: a run of them is tried in every way there is.
    before, behind = rf"(?:(?:{words.FINAL})\s{{0,9}})?", rf"(?:\s{{0,9}}(?:{words.FINAL}))?"
    called, noted = (
        rf"(?:(?:(?:my|the)\s+)?{before}(?:{named}){behind}|overall)\b"
        for named in (words.RATING, f"{words.RATING}|{words.NOTE}")
    )
    alone = rf"{_SCALE}\W{{0,6}}(?:is\W{{0,3}})?(?:\\boxed\W)?{rating}{_OUT_OF_ANY}{end}\W*\Z"
    made = {
        "pair_line": rf"^\W*(?:(?:the )?{before}(?:scores?|{words.RATING})?{_SCALE}\W{{0,4}})?"
        rf"{left}(?:\s*[,;|&]\s*|\s+(?:{words.AND})\s+|\s+|和|と){right}\W*$",
        "labelled": rf"(?:{words.SIDE})\W{{0,3}}(?P<who>1|2|a|b)(?![a-z\d])(?:['\u2019]s)?"
        rf"\W{{0,3}}(?:{words.RATING})?\W{{0,3}}[:=|]\W{{0,4}}{one}(?![\d.]*\d)"
        r"(?=\s*(?:[\n(.,;*_)\]|]|$))",
        "in_brackets": rf"[(\[]\s*{first}\s*,\s*{second}\s*[)\]]",
        "bracketed": rf"\[\[\s*(?:(?:{words.RATING})\s*:?\s*)?{rating}{_out_of('of')}\s*\]\]",
        "word": rf"(?:\b(?P<final>final|overall)\s+)?\b(?:rating|score)\b{_SCALE}"
        rf"(?P<link>\W{{0,6}}(?:is\W{{0,3}}|of\W{{0,3}})?){rating}{_OUT_OF_ANY}{end}",
        "overall": rf"\boverall{_SCALE}\W{{0,4}}[:=]\W{{0,4}}{rating}{_OUT_OF_ANY}{end}"
        r"(?=[^\w\n]*(?:$|[\n.,;(]))",
        "tagged": rf"\A\W*(?:{called}{_SCALE}\W{{0,9}}(?:is\W{{0,9}})?)?(?:\\boxed)?\W{{0,9}}"
        rf"{rating}{_OUT_OF_ANY}{end}(?!\w)",
        "closing": rf"\A\W*{called}{alone}",
        "noted": rf"\A\W*{noted}{alone}",
    }
    return Patterns(**{name: re.compile(text, re.IGNORECASE) for name, text in made.items()})
