"""Floats that JSON has no word for: `NaN`, `Infinity` and `-Infinity` are written as those strings.

The mapping is that of Protocol Buffers (protobuf.dev/programming-guides/json). Python's `float()`
and JavaScript's `Number()` read the strings; orjson would write null, which reads as missing, and
`json` bare words that strict readers refuse.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(value: object) -> object:
    """A value whose floats all have a place in JSON; inside mappings, lists and tuples too."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: to_json(held) for key, held in cast(Mapping[str, object], value).items()}
    if isinstance(value, (list, tuple)):
        return [to_json(held) for held in cast(list[object], value)]
    return value


def from_json(value: object) -> Any:
    """What `to_json` was given; a tuple comes back as a list, the three words as floats."""
    if isinstance(value, str):
        return _WORDS.get(value, value)
    if isinstance(value, dict):
        return {key: from_json(held) for key, held in cast(dict[str, object], value).items()}
    if isinstance(value, list):
        return [from_json(held) for held in cast(list[object], value)]
    return value
