"""A verdict that a judge gave as JSON, fenced or bare, as the last thing it wrote.

    {"explanation": "...", "winner": "A"}      ```json {"scores": {"A": 8, "B": 7}} ```

JSON that stands elsewhere may be quoted from an answer, and is not read.
"""

import json
import re

from apps.common.json_value import JsonObject, JsonValue

_VERDICT_KEYS = (
    *("verdict", "finalverdict", "winner", "choice", "preference", "preferred", "decision"),
    *("judgment", "better", "betteranswer", "betterassistant", "label"),
)
_RATING_KEYS = ("rating", "score", "overallrating", "overallscore", "overall", "grade")
_PAIR_KEYS = (
    *(("a", "b"), ("1", "2"), ("assistanta", "assistantb"), ("assistant1", "assistant2")),
    *(("scorea", "scoreb"), ("score1", "score2"), ("answera", "answerb"), ("answer1", "answer2")),
    ("assistantascore", "assistantbscore"),
)
_MAX_OBJECTS = 64


def verdict_in(body: str) -> str | None:
    """The word under a key such as `winner`."""
    verdict = _first(_object_at_end(body), _VERDICT_KEYS)
    return verdict.strip() if isinstance(verdict, str) else None


def rating_in(body: str) -> str | None:
    return _number(_first(_object_at_end(body), _RATING_KEYS))


def scores_in(body: str) -> tuple[str, str] | None:
    """Two scores: a list, an object by assistant, or two keys."""
    fields = _object_at_end(body)
    scores = _first(fields, ("scores", "ratings"))
    if isinstance(scores, list) and len(scores) == 2:
        first, second = scores
    else:
        inner = _plain_keys(scores) if isinstance(scores, dict) else fields
        keys = next((keys for keys in _PAIR_KEYS if set(keys) <= inner.keys()), None)
        if keys is None:
            return None
        first, second = inner[keys[0]], inner[keys[1]]
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
    return {re.sub(r"[^a-z0-9]", "", key.lower()): value for key, value in fields.items()}


def _first(fields: JsonObject, keys: tuple[str, ...]) -> JsonValue:
    return next((fields[key] for key in keys if key in fields), None)


def _number(value: JsonValue) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    return text if re.fullmatch(r"-?\d{1,9}(?:\.\d+)?", text) else None
