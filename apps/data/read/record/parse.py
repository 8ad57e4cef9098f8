"""JSON as people have it: the standard's, and what Python's json, pandas and tables write."""

import ast
import itertools
import json
import math
import re
from collections.abc import Iterator

import orjson

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import is_set

_PYTHON_LISTS = ("[{", "[[", "['", '["', "[(", "{'")
_ITEM = re.compile(
    r"""('[^'\\]*+(?:\\.?[^'\\]*+)*+(?:'|\Z)|"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)|[}\])])"""
    r"""(\s+(?=['"{\[(]))?""",
    re.DOTALL,
)
"""A text or the end of a value; and the blanks before another one that begins without a comma. A
text that never ends goes to the end, so that it is not tried again from each of its quotes."""
_MAX_LITERAL_CHARS = 1 << 20
_KEY_END = re.compile(rb'(?<!\\)(?:\\\\)*"\s*:')
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
"""Whole numbers beyond are floats, as orjson reads them."""
_MOST_FLOAT_BITS = 1024


def parse(raw: bytes | str) -> JsonValue:
    """None when `raw` is no JSON value (or is null)."""
    return parse_mended(raw)[0]


def parse_mended(raw: bytes | str) -> tuple[JsonValue, list[str]]:
    """The value, and the texts in it that had halves of surrogate pairs, as they are now.

    Of a key that an object has twice no value is lost; see `named`.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _as_python_reads(raw)
    return _as_python_reads(raw) if _repeats_a_key(raw, value) else (value, [])


def parse_cell(text: str) -> JsonValue:
    """A list that a table holds as JSON, or as Python or NumPy prints it; None for none.

    NumPy puts a blank or a line end between two items, and no comma. To Python two texts side by
    side are one.

        ['Hi' 'Hello, "Bob"']           ->  ["Hi", "Hello, \\"Bob\\""]
        [{'value': 'a'}\\n {'value': 'b'}]  ->  [{"value": "a"}, {"value": "b"}]
    """
    return parse_cell_mended(text)[0]


def parse_cell_mended(text: str) -> tuple[JsonValue, list[str]]:
    """As `parse_cell`, and what `parse_mended` says beside it."""
    value, mended = parse_mended(text)
    if value is not None or not text.startswith(_PYTHON_LISTS) or len(text) > _MAX_LITERAL_CHARS:
        return value, mended
    try:
        listed = ast.literal_eval(_ITEM.sub(_with_comma, text))
        return _as_python_reads(json.dumps(listed))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, []  # Python prints more than JSON can hold: sets, bytes


def _with_comma(item: re.Match[str]) -> str:
    return item[1] + ("," if item[2] else "")


def with_halves(raw: bytes) -> JsonValue:
    """As `parse`, but halves of surrogate pairs stay what they are: `as_line` writes them again."""
    value, mended = parse_mended(raw)
    return json.loads(raw, strict=False, object_pairs_hook=named) if mended else value


def as_line(value: JsonValue) -> bytes | None:
    """JSON in one line that `parse_mended` reads as it would have read what `value` was made of.

    None for what is nested deeper than can be read.
    """
    try:
        return orjson.dumps(value)
    except TypeError:  # halves of surrogate pairs, or more than 254 levels
        pass
    try:
        line = json.dumps(value).encode()
    except RecursionError:
        return None
    return line if parse(line) is not None else None


def _as_python_reads(raw: bytes | str) -> tuple[JsonValue, list[str]]:
    """What has no meaning becomes null, so that it costs its own field: NaN, the infinities, and
    numbers out of range. Half of a surrogate pair, as of an emoji that was cut, becomes U+FFFD.

        b'{"score": NaN, "title": "Hi \\ud83d", "text": "a<tab>b"}'
        ->  {"score": None, "title": "Hi \\ufffd", "text": "a\\tb"} and "Hi \\ufffd"
    """
    mended: list[str] = []
    try:
        value = json.loads(raw, strict=False, object_pairs_hook=named)
        return _plain(value, mended), mended
    except (ValueError, RecursionError):
        return None, []


def _repeats_a_key(raw: bytes | str, value: JsonValue) -> bool:
    """Whether an object in `raw` has a key twice: then there are more ends of keys than keys.

    {"a": 1, "a": 2} has two quotes before a colon, and its value one key; a quote in a text is
    escaped. Texts that begin with a colon, and backslashes before a key's end, take longer.
    """
    num_keys = _num_keys(value)
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    num_ends = data.count(b'":') + data.count(b'" :')
    if num_ends == num_keys:
        return False
    if b'\\\\"' not in data:
        num_ends -= data.count(b'\\":') + data.count(b'\\" :')
    return num_ends != num_keys and sum(1 for _ in _KEY_END.finditer(data)) > num_keys


def _num_keys(value: JsonValue) -> int:
    """Of all the objects in a value, which may be deeper than Python's stack."""
    num_keys, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            num_keys += len(one)
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return num_keys


def named(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    """An object; of a key that it has twice the last value that says something, as JSON's readers
    take the last. Another value stands under a name of its own, where it is seen as one that
    nobody reads.

        {"a": 1, "a": 2, "a": None}  ->  {"a": 2, "a (2)": 1}
    """
    made: JsonObject = {}
    numbers: dict[str, Iterator[int]] = {}
    for key, value in pairs:
        if key in made and made[key] != value and is_set(value):
            if is_set(made[key]):
                free = numbers.setdefault(key, itertools.count(2))
                made[_free_name(key, free, made)] = made[key]
            made[key] = value
        else:
            made.setdefault(key, value)
    return made


def _free_name(key: str, numbers: Iterator[int], made: JsonObject) -> str:
    names = (f"{key} ({number})" for number in numbers)
    return next(name for name in names if name not in made)


def _plain(value: JsonValue, mended: list[str]) -> JsonValue:
    if isinstance(value, str):
        if not _is_text(value):
            value = without_halves(value)
            mended.append(value)
        return value
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        value = float(value) if value.bit_length() < _MOST_FLOAT_BITS else math.inf
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(one, mended) for one in value]
    if isinstance(value, dict):
        return {
            key if _is_text(key) else without_halves(key): _plain(one, mended)
            for key, one in value.items()
        }
    return value


def without_halves(text: str) -> str:
    """Two halves that were written as two characters of UTF-8 (CESU-8) are one character again."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)
