"""JSON as people have it: the standard's, and what Python's json, pandas and tables write."""

import ast
import json
import math

import orjson

from apps.common.json_value import JsonValue

_PYTHON_LISTS = ("[{", "[[", "['", "[(")
_MAX_LITERAL_CHARS = 1 << 20
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
"""Whole numbers beyond are floats, as orjson reads them."""
_MOST_FLOAT_BITS = 1024


def parse(raw: bytes | str) -> JsonValue:
    """None when `raw` is no JSON value (or is null)."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _as_python_reads(raw)


def parse_cell(text: str) -> JsonValue:
    """A list that a table holds as JSON, or as Python prints it; None when it is neither."""
    value = parse(text)
    if value is not None or not text.startswith(_PYTHON_LISTS) or len(text) > _MAX_LITERAL_CHARS:
        return value
    try:
        return orjson.loads(orjson.dumps(ast.literal_eval(text)))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None  # Python prints more than JSON can hold: sets, bytes


def _as_python_reads(raw: bytes | str) -> JsonValue:
    """What has no meaning becomes null, so that it costs its own field: NaN, the infinities,
    numbers out of range, and a text with half a surrogate pair. A message without text is a fault.

        b'{"score": NaN, "title": "\\ud83d", "text": "a<tab>b"}'
        ->  {"score": None, "title": None, "text": "a\\tb"}
    """
    try:
        return _plain(json.loads(raw, strict=False))
    except (ValueError, RecursionError):
        return None


def _plain(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return value if _is_text(value) else None
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        value = float(value) if value.bit_length() < _MOST_FLOAT_BITS else math.inf
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if _is_text(key)}
    return value


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)
