"""A verdict that a judge gave as JSON, fenced or bare, as the last thing it wrote.

    {"explanation": "...", "winner": "A"}      ```json {"scores": {"A": 8, "B": 7}} ```

JSON that stands elsewhere may be quoted from an answer, and is not read.
"""

import json
import re

from apps.common.json_value import JsonObject, JsonValue
from apps.eval.protocols import words

_VERDICT_KEYS = (
    *("verdict", "finalverdict", "winner", "choice", "preference", "preferred", "decision"),
    *("judgment", "better", "betteranswer", "betterassistant", "label"),
)
_RATING_KEYS = ("rating", "score", "overallrating", "overallscore", "overall", "grade")


def _keys(text: str) -> re.Pattern[str]:
    """As `_plain_keys` leaves them."""
    return re.compile(text.replace(" ", ""))


_VERDICT_WORD = _keys(f"(?:{words.FINAL})?(?:{words.VERDICT})(?:{words.FINAL})?")
_RATING_WORD = _keys(f"(?:{words.FINAL})?(?:{words.RATING}|{words.NOTE})(?:{words.FINAL})?")
_ONE_OF_TWO = _keys(f"(?:score)?(?:{words.SIDE})?(?:(a|1)|(?:b|2))(?:score)?")
_MAX_OBJECTS = 64


def verdict_in(body: str) -> str | None:
    """The word under a key such as `winner`."""
    verdict = _first(_object_at_end(body), _VERDICT_KEYS, _VERDICT_WORD)
    return verdict.strip() if isinstance(verdict, str) else None


def rating_in(body: str) -> str | None:
    return _number(_first(_object_at_end(body), _RATING_KEYS, _RATING_WORD))


def scores_in(body: str) -> tuple[str, str] | None:
    """Two scores: a list, an object by assistant, or two keys."""
    fields = _object_at_end(body)
    scores = _first(fields, ("scores", "ratings"), _RATING_WORD)
    if isinstance(scores, list) and len(scores) == 2:
        first, second = scores
    else:
        inner = _plain_keys(scores) if isinstance(scores, dict) else fields
        named = [match for key in inner if (match := _ONE_OF_TWO.fullmatch(key))]
        if [bool(match[1]) for match in named] not in ([True, False], [False, True]):
            return None
        first, second = (inner[match[0]] for match in sorted(named, key=lambda match: not match[1]))
    one, two = _number(first), _number(second)
    return (one, two) if one is not None and two is not None else None


def closing_json(body: str) -> str:
    """The JSON object at the end, if it begins a line; "" without one."""
    text, start = _at_end(body)[1:]
    return text[start:] if not text[:start].rpartition("\n")[2].strip(" \t`*") else ""


def _object_at_end(body: str) -> JsonObject:
    """The outermost JSON object that ends where the body ends, by plain keys; {} without one."""
    return _at_end(body)[0]


def _at_end(body: str) -> tuple[JsonObject, str, int]:
    """(that object, the text without what closes a fence, where the object begins in it)."""
    text = re.sub(r"\s*```\s*\Z", "", body.rstrip())
    nothing: tuple[JsonObject, str, int] = ({}, "", 0)
    if not text.endswith("}"):
        return nothing
    decoder = json.JSONDecoder()
    starts = [match.start() for match in re.finditer(r"\{", text)][-_MAX_OBJECTS:]
    for start in starts:
        try:
            value, end = decoder.raw_decode(text, start)
        except ValueError:
            continue
        if end == len(text):
            return _plain_keys(value), text, start
    return nothing


def _plain_keys(fields: JsonObject) -> JsonObject:
    return {re.sub(r"[\W_]", "", key.lower()): value for key, value in fields.items()}


def _first(fields: JsonObject, keys: tuple[str, ...], word: re.Pattern[str]) -> JsonValue:
    """What stands under the first of these keys, or under the only one that is such a word."""
    named = [key for key in fields if word.fullmatch(key)]
    return next((fields[key] for key in (*keys, *named[: len(named) == 1]) if key in fields), None)


def _number(value: JsonValue) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    return text if re.match(r"-?\d", text) and len(text) < 20 else None
