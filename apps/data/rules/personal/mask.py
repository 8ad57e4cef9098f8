"""Personal data and secrets, replaced by typed placeholders.

Patterns (`entities.py`) run in google-re2, whose time is linear in the text: the usual e-mail
expressions need seconds for 80 KB of base64 in a backtracking engine. They know the digits and
marks of ASCII, so those of Arabic, Hindi or Thai and the wide ones of Japanese are read as these.
Each match is then checked where it stands: check digits, and what is written before and after it.
"""

# re2 is partly unknown:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson
import re2

from apps.common.json_value import JsonValue
from apps.data.read.record.layout import Turn
from apps.data.read.records import Record
from apps.data.rules.personal.entities import ENTITIES, Entity
from apps.data.rules.profiles import Rules
from apps.data.rules.verdict import Verdict

_CLASSES = [(entity, re2.compile(entity.pattern)) for entity in ENTITIES]
_ANY = re2.compile("|".join(f"(?:{entity.pattern})" for entity in ENTITIES))
_MARKS = {
    **{chr(ord(mark) + 0xFEE0): mark for mark in "+-().@/"},  # Halfwidth and Fullwidth Forms
    **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013", "-"),
    **dict.fromkeys("\u3000\u00a0\u202f\u205f", " "),
    **{chr(code): " " for code in range(0x2000, 0x200B)},
    "\u066b": ".",  # of Arabic decimals
}


def _one_form() -> npt.NDArray[np.uint16]:
    """What each character below U+10000 is read as, by its code."""
    form = np.arange(0x10000, dtype="<u2")
    for code in range(128, 0x10000):
        if (char := chr(code)).isdecimal():
            form[code] = ord(str(int(char)))
    for mark, plain in _MARKS.items():
        form[ord(mark)] = ord(plain)
    return form


_ONE_FORM = _one_form()
_FOLDED = map(chr, np.flatnonzero(np.arange(0x10000) != _ONE_FORM).tolist())
_BETWEEN = "".join(mark for mark, plain in _MARKS.items() if plain in " -")
_DIGITS_AND_MARKS = "".join(char for char in _FOLDED if char not in _BETWEEN)
_MAYBE = re2.compile(
    f"{_ANY.pattern}|[{_DIGITS_AND_MARKS}]|[0-9A-Za-z).+/][{_BETWEEN}][0-9A-Za-z(+/]"
)
"""Anything personal, or that may be in another form. French has no-break blanks before its marks:
those between two words alone are no reason to look at a text again."""


def personal_data(record: Record, rules: Rules) -> Verdict:
    """Mask every turn, people's too, and what tools are called with; the share that was right is in
    `personal_quality.json`."""
    if rules.personal_data != "mask":
        return None
    said = [part for turn in record.turns for part in (turn.text, turn.tool_calls) if part]
    if _MAYBE.search("\n".join(said)) is None:
        return None
    turns = list(map(_masked, record.turns))
    return turns if any(a is not b for a, b in zip(turns, record.turns, strict=True)) else None


def _masked(turn: Turn) -> Turn:
    text, _ = mask(turn.text)
    calls = turn.tool_calls
    if calls is not None and _MAYBE.search(calls) is not None:
        made = orjson.loads(calls)
        for call in made:
            call["function"]["arguments"] = _masked_value(call["function"]["arguments"])
        calls = orjson.dumps(made).decode()
    if text == turn.text and calls == turn.tool_calls:
        return turn
    return dataclasses.replace(turn, text=text, tool_calls=calls)


def _masked_value(value: JsonValue) -> JsonValue:
    """The texts and numbers in a value.

    {"to": "ann@example.org", "card": 4111111111111111}  ->  {"to": "<EMAIL>", "card": "<CARD>"}
    """
    if isinstance(value, str):
        return mask(value)[0]
    if isinstance(value, list):
        return [_masked_value(one) for one in value]
    if isinstance(value, dict):
        return {key: _masked_value(one) for key, one in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool):
        shown, masked = mask(str(value))
        return shown if masked else value
    return value


def mask(text: str) -> tuple[str, int]:
    """The text with `<EMAIL>`, `<PHONE>`... in it, and how many were put there."""
    if _MAYBE.search(text) is None:
        return text, 0
    plain = _in_one_form(text)
    if plain is not text and _ANY.search(plain) is None:
        return text, 0
    total = 0
    for entity, pattern in _CLASSES:
        spans = [match.span(match.lastindex or 0) for match in pattern.finditer(plain)]
        if real := [span for span in spans if _is_real(entity, plain, *span)]:
            text, plain = (_with_marks(one, real, f"<{entity.name}>") for one in (text, plain))
            total += len(real)
    return text, total


def _with_marks(text: str, spans: Sequence[tuple[int, int]], mark: str) -> str:
    """The text with a mark in place of each span."""
    starts, ends = zip(*spans, strict=True)
    return mark.join(text[a:b] for a, b in zip((0, *ends), (*starts, len(text)), strict=True))


def _in_one_form(text: str) -> str:
    """A text as long, with the digits and marks of other scripts as those of ASCII."""
    if text.isascii():
        return text
    codes = np.frombuffer(text.encode("utf-16-le"), "<u2")
    return _ONE_FORM[codes].tobytes().decode("utf-16-le")


def _is_real(entity: Entity, text: str, start: int, end: int) -> bool:
    return entity.is_real is None or entity.is_real(text, start, end)
