"""Whether an answer agrees with a reference, in every script.

Compared are forms that look the same to a reader: NFKC (full-width letters and digits are plain
ones), digits of every script, one kind of quotes and apostrophes, one case.

    number    1.234,56  1,234.56  1'234.56  and their Arabic digits     1234.56
              1,234       1234, or 1.234 where a comma is the decimal sign: either may be meant
              -5  1.5e3  1.5 x 10^3  3/4  2 1/2                         signs, exponents, fractions
              1.5 \\times 10^{3}  \\frac{3}{4}  1{,}234                 the same in LaTeX
              5 km^2  5 m**2  5 mol s-1                                 5: the others are the unit's
"""

import math
import re
import unicodedata
from typing import Literal

Match = Literal["exact", "contains", "number"]

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032\uff07`\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02", '"'),
        **{"\u066b": ".", "\u066c": ",", "\u2044": "/", "\u00d7": "x", "\u22c5": "x"},
        # What nobody sees: marks of direction, breaks without width, soft hyphens.
        **dict.fromkeys("\u00ad\u200b\u200e\u200f\u2060\ufeff", ""),
        **dict.fromkeys(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))), ""),
    }
)
_KEPT = "#%&@/\\+$()[]{}-_"
"""punctuation by category that is part of a name: C#, 50%, R&D"""
_SUBSTRING_SCRIPTS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
"""Scripts whose words stand without blanks, or carry their particles: Thai, Han, kana, Hangul..."""
_GROUPED = r"\d{1,3}(?:[ ']\d{3})+(?!\d)|\d+"
# A number behind ^ that no number stands before is the exponent of a letter or a unit.
_NUMBER = re.compile(
    r"(?<![a-z0-9^])(?<![a-z0-9]_)(?<![a-z]\*\*)(?<!\d[.,])(?<!\^-)(?P<sign>[-+]?)(?=[.,]?\d)"
    r"(?:(?P<mixed>\d+)(?P<gap>[ \u2064])(?=\d+ ?/ ?\d))?"
    rf"(?P<whole>(?:{_GROUPED})?)(?P<rest>(?:[.,]\d+)*)"
    r"(?:e(?P<e>[-+]?\d+)|\s*[x*·]\s*10\s*(?:\^|\*\*)\s*(?P<ten>[-+]?\d+)"
    r"|(?:\^|\*\*)(?P<power>[-+]?\d+))?(?:\s*/\s*(?P<divisor>\d+)(?![\d/]))?"
)
_LATEX = [
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "x"),
    (re.compile(r"(?<=\d)(?:\{,\}|\\,)(?=\d{3})"), "'"),
    (re.compile(r"\^\s*\{([^{}]*)\}"), r"^\1"),
]
_PLUS = "\u2064"
"""Unicode's invisible plus, between a number and the fraction that is glued to it"""
_FRACTION_BEHIND = re.compile("(?<=\\d)(\\s?)(?=[\u00bc-\u00be\u2150-\u215e]|\\\\[dt]?frac)")


def agrees(match: Match, answer: str, reference: str) -> bool:
    """Whether an answer agrees with one reference by a question's `match`."""
    if match == "number":
        wanted, given = last_number(reference), last_number(answer)
        return bool(wanted and given) and any(_is_close(wanted[0], value) for value in given)
    if match == "contains":
        return _contains(plain(answer), plain(reference))
    return trimmed(answer) == trimmed(reference)


def is_comparable(match: Match, reference: str) -> bool:
    """Whether an answer can agree with a reference at all, and one that says nothing cannot."""
    if match == "number":
        return bool(last_number(reference))
    return bool(_tokens(plain(reference)) if match == "contains" else trimmed(reference))


def trimmed(text: str) -> str:
    """A text without what stands around it: blanks, and punctuation of any script."""
    folded = re.sub(r"\s+", " ", plain(text)).strip()
    start, end = 0, len(folded)
    while start < end and _is_outer(folded[start]):
        start += 1
    while end > start and _is_outer(folded[end - 1]):
        end -= 1
    return folded[start:end].strip()


def plain(text: str) -> str:
    """One form for what reads the same."""
    folded = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS).casefold()
    folded = folded.replace("i\u0307", "i")  # of Turkish
    if folded.isascii():
        return folded
    folded = "".join(_digit(char) for char in folded)
    return unicodedata.normalize("NFC", folded)


def last_number(text: str) -> tuple[float, ...]:
    """What the last number of a text may mean, the likeliest first.

    () without one, and for one that no float can hold, such as 250^150.
    """
    text = _FRACTION_BEHIND.sub(lambda gap: " " if gap[1] else _PLUS, text)
    for written, meant in _LATEX:
        text = written.sub(meant, text)
    raised = _SUPERSCRIPT_RUN.sub(lambda run: f"^{run[0].translate(_SUPERSCRIPTS)}", text)
    joined = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d)", "'", raised)
    said = plain(joined)
    numbers = [*_NUMBER.finditer(said)]
    # `s-1` is a unit, and `GPT-4` a name, where there is a number beside.
    alone = [match for match in numbers if not re.search("[a-z]-$", said[: match.start()])]
    return _values((alone or numbers)[-1]) if numbers else ()


def _values(match: re.Match[str]) -> tuple[float, ...]:
    sign, whole = -1.0 if match["sign"] == "-" else 1.0, match["whole"]
    # A blank may part thousands, or two numbers.
    wholes = [re.sub(r"\D", "", whole), *([whole.rpartition(" ")[2]] if " " in whole else [])]
    values = [float(number) for one in wholes for number in _readings(one, match["rest"])]
    if ten := match["e"] or match["ten"]:
        values = [value * _power(10.0, ten) for value in values]
    if match["power"]:
        values = [_power(value, match["power"]) for value in values if 0 < value < 10**6]
    divisor = float(match["divisor"] or 0)
    if math.isinf(divisor):
        return ()
    if divisor:
        values = [value / divisor for value in values]
    if match["mixed"]:
        sums = [float(match["mixed"]) + value for value in values]
        values = sums if match["gap"] == _PLUS else [*sums, *values]  # a blank may part two numbers
    return tuple(sign * value for value in values if math.isfinite(value))


def _power(base: float, exponent: str) -> float:
    """inf where a float cannot hold it."""
    try:
        return base ** float(exponent)
    except OverflowError:
        return math.inf


def _readings(whole: str, rest: str) -> list[str]:
    """Decimal numbers that `whole` and its groups may mean.

    "1" ",234"       ["1234", "1.234"]        "3" ",5"   ["3.5"]
    "1" ".234,56"    ["1234.56"]              "1" ".5"   ["1.5"]
    "12" ",34,567"   ["1234567"]              "1" ".234" ["1.234", "1234"]
    """
    groups = re.findall(r"([.,])(\d+)", rest)
    digits = [number for _, number in groups]
    whole = whole or "0"
    if not groups:
        return [whole]
    last_sign, last = groups[-1]
    decimal = f"{whole}{''.join(digits[:-1])}.{last}"
    grouped = f"{whole}{''.join(digits)}"
    signs = {sign for sign, _ in groups}
    if len(signs) > 1:
        return [decimal if [sign for sign, _ in groups].count(last_sign) == 1 else grouped]
    if len(groups) > 1:
        return [grouped]
    if len(last) != 3 or len(whole) > 3 or whole == "0":
        return [decimal]
    return [grouped, decimal] if last_sign == "," else [decimal, grouped]


def _is_close(first: float, second: float) -> bool:
    return abs(first - second) <= 1e-9 * max(1.0, abs(first), abs(second))


def _contains(answer: str, reference: str) -> bool:
    """Whether the reference's words stand in the answer; where words have no blanks, its signs.

    A word of another script ends where signs without blanks begin, as in `Pythonで`.
    """
    wanted = _tokens(reference)
    if _SUBSTRING_SCRIPTS.search(reference):
        return "".join(wanted) in "".join(_tokens(answer))
    answer = _SUBSTRING_SCRIPTS.sub(" ", answer)
    return f" {' '.join(wanted)} " in f" {' '.join(_tokens(answer))} "


def _tokens(text: str) -> list[str]:
    """Words, with the signs that belong to them: c++, c#, 3.5, e-mail."""
    spaced = "".join(char if _is_of_word(char) else " " for char in text)
    return [token for word in spaced.split() if (token := word.rstrip(".-").lstrip("-"))]


def _digit(char: str) -> str:
    """A decimal digit of any script as an ASCII one; every other sign as it is."""
    return str(unicodedata.decimal(char)) if unicodedata.category(char) == "Nd" else char


def _is_outer(char: str) -> bool:
    """Punctuation that may stand around an answer and is no part of it."""
    return char in "`^" or (unicodedata.category(char)[0] == "P" and char not in _KEPT)


def _is_of_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN" or char in "_.+#-"
