"""The parts of a JSON text as they are written.

What a model wrote is passed on unchanged: reading and writing it anew would round its large numbers
and fail at half of a surrogate pair, which JSON allows as an escape.
"""

import json
import re
from typing import Any, NoReturn

_SPACE = re.compile(r"[ \t\n\r]*")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def several(text: str) -> list[tuple[Any, str]]:
    """Values and their texts, as in `{"a": 1}; {"b": 2}`, which is no JSON: with semicolons or
    nothing but space between them. Raises ValueError as `parse`."""
    found: list[tuple[Any, str]] = []
    at = _after_space(text, 0)
    try:
        while at < len(text):
            value, end = _DECODER.raw_decode(text, at)
            found.append((value, text[at:end]))
            at = _after_space(text, end)
            at = _after_space(text, at + (text[at : at + 1] == ";"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return found


def parse(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, also when it is nested too deeply."""
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parts(text: str) -> list[tuple[str, str]]:
    """(key, text of the value) of an object, or ("", text) of an array, whose text parses."""
    at = _after_space(text, 0)
    has_keys = text[at] == "{"
    at = _after_space(text, at + 1)
    found: list[tuple[str, str]] = []
    while text[at] not in "}]":
        key = ""
        if has_keys:
            key, at = _DECODER.raw_decode(text, at)
            at = _after_space(text, _after_space(text, at) + 1)  # the colon
        _, end = _DECODER.raw_decode(text, at)
        found.append((key, text[at:end]))
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return found


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None  # it may be empty
    return space.end()
