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
import re

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
_DIGITS = {char: str(int(char)) for char in map(chr, range(128, 0x10000)) if char.isdecimal()}
_DIGIT = re.compile(f"[{''.join(_DIGITS)}]")
_MARKS = {
    **{chr(ord(mark) + 0xFEE0): mark for mark in "+-().@/"},  # Halfwidth and Fullwidth Forms
    **dict.fromkeys("\u2212\u2010\u2011", "-"),
    **dict.fromkeys("\u3000\u00a0\u2009\u202f", " "),
    "\u066b": ".",  # of Arabic decimals
}


def personal_data(record: Record, rules: Rules) -> Verdict:
    """Mask every turn, people's too, and what tools are called with; the share that was right is in
    `personal_quality.json`."""
    if rules.personal_data != "mask":
        return None
    said = [part for turn in record.turns for part in (turn.text, turn.tool_calls) if part]
    if _ANY.search(_in_one_form("\n".join(said))) is None:
        return None
    turns = list(map(_masked, record.turns))
    return turns if any(a is not b for a, b in zip(turns, record.turns, strict=True)) else None


def _masked(turn: Turn) -> Turn:
    text, _ = mask(turn.text)
    calls = turn.tool_calls
    if calls is not None and _ANY.search(calls) is not None:
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
    plain = _in_one_form(text)
    if _ANY.search(plain) is None:
        return text, 0
    total = 0
    for entity, pattern in _CLASSES:
        spans = [match.span(match.lastindex or 0) for match in pattern.finditer(plain)]
        real = [span for span in spans if _is_real(entity, plain, *span)]
        for start, end in reversed(real):
            text = f"{text[:start]}<{entity.name}>{text[end:]}"
            plain = f"{plain[:start]}<{entity.name}>{plain[end:]}"
        total += len(real)
    return text, total


def _in_one_form(text: str) -> str:
    """A text as long, with the digits and marks of other scripts as those of ASCII."""
    if text.isascii():
        return text
    for mark, plain in _MARKS.items():
        text = text.replace(mark, plain)
    return _DIGIT.sub(lambda digit: _DIGITS[digit[0]], text)


def _is_real(entity: Entity, text: str, start: int, end: int) -> bool:
    return entity.is_real is None or entity.is_real(text, start, end)
