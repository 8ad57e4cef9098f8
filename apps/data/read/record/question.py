"""What is asked in columns: a text, and what stands beside it for it to speak of."""

import json
import math
from dataclasses import dataclass

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import size_of

BESIDE = ("input", "context")
"""Columns that hold what a question speaks of."""

_NO_INPUT = ("<noinput>", "noinput", "nan")
"""How Self-Instruct and tables write that there is none."""
_MIN_QUOTED_CHARS = 40
"""From here on a text that stands in another one does not stand there by chance."""


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    raw_bytes: int
    """UTF-8 bytes of the texts; numbers and lists are written anew, and are not among them."""
    read: frozenset[str]
    """The columns it was made of."""


def question_of(fields: JsonObject, asked: str) -> Question:
    """The text of a column, with those of `BESIDE` below it.

    An instruction never holds them; a prompt may have been made of them already.

    {"instruction": "Sum this list.", "input": [1, 2, 3]}  ->  "Sum this list.\\n\\n[1, 2, 3]"
    """
    texts, read = [text_of_value(fields.get(asked)) or ""], [asked]
    for key in BESIDE:
        text = text_of_value(fields.get(key))
        if key == asked or text is None:
            continue
        read.append(key)
        if not text or text.strip().lower() in _NO_INPUT:
            continue
        if asked == "instruction" or not _quotes(texts[0], text):
            texts.append(text)
    raw_bytes = sum(size_of(said) for key in read if isinstance(said := fields.get(key), str))
    return Question("\n\n".join(filter(None, texts)), raw_bytes, frozenset(read))


def without_empty(fields: JsonObject) -> JsonObject:
    """Without what says nothing: empty texts, nulls and NaN; itself when it has none.

    A table of several data sets has the columns of all.
    """
    if all(map(_says, fields.values())):
        return fields
    return {key: value for key, value in fields.items() if _says(value)}


def _says(value: JsonValue) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and value != value)


def _quotes(text: str, other: str) -> bool:
    """Whether a text has another one in it that is long, on lines of its own, or at the end."""
    other = other.strip()
    if other not in text:
        return False
    if len(other) >= _MIN_QUOTED_CHARS or f"\n{other}\n" in text:
        return True
    before = text.rstrip().removesuffix(other)
    return len(before) < len(text.rstrip()) and not before[-1:].isalnum()


def has_answer(fields: JsonObject, key: str) -> bool:
    """An answer may be a number."""
    value = fields.get(key)
    return isinstance(value, str) or _is_number(value)


def text_of_value(value: object) -> str | None:
    """A text, a number, or a list or object as JSON; None for anything else."""
    if isinstance(value, str):
        return value
    if _is_number(value) or (isinstance(value, list | dict) and value):
        return json.dumps(value, ensure_ascii=False, default=str)
    return None


def _is_number(value: object) -> bool:
    """A table has NaN where nothing is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
