"""Every layout by name, and which one a record has."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Literal, cast, get_args

import orjson

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.layouts import (
    alpaca,
    chatgpt_export,
    claude_export,
    cria,
    dify,
    dolly,
    lmsys,
    oasst,
    openai,
    pairs,
    prompt_completion,
    sharegpt,
    ultrachat,
    wildchat,
)
from apps.data.read.record.layout import Layout, Names, list_of, object_of
from apps.data.read.record.lists import KEYS, with_lists
from apps.data.read.record.messages import is_message
from apps.data.read.record.parse import named
from apps.data.read.record.question import BESIDE, without_empty
from apps.data.read.record.rounds import is_pair

LayoutName = Literal[
    "sharegpt",
    "openai",
    "wildchat",
    "lmsys",
    "ultrachat",
    "oasst-trees",
    "oasst-messages",
    "chatgpt-export",
    "claude-export",
    "alpaca",
    "dolly",
    "prompt-completion",
    "pairs",
    "dify",
    "cria",
]
LAYOUTS: tuple[Layout, ...] = (
    chatgpt_export.LAYOUT,
    claude_export.LAYOUT,
    oasst.TREES,
    oasst.MESSAGES,
    dify.LAYOUT,
    wildchat.LAYOUT,
    lmsys.LAYOUT,
    cria.LAYOUT,
    ultrachat.LAYOUT,
    sharegpt.LAYOUT,
    openai.LAYOUT,
    alpaca.LAYOUT,
    dolly.LAYOUT,
    prompt_completion.LAYOUT,
    pairs.LAYOUT,
)
"""In the order in which they are tried: those with fields of their own first, and lists of texts
after columns, for they may be of anything."""
BY_NAME: Mapping[str, Layout] = {
    name: layout for name in get_args(LayoutName) for layout in LAYOUTS if layout.name == name
}
NO_NAMES = Names()
_COLUMNS = frozenset(
    (
        *(*KEYS, *BESIDE, *prompt_completion.ASKED, *prompt_completion.SAID),
        *("instruction", "history", "id", "model", "system"),
    )
)
"""That layouts without fields of their own have; others are written by programs, always alike."""
_MAX_NAMED = 12
_MAX_SHOWN_CHARS = 40


def recognised(record: JsonObject) -> Layout | None:
    """The layout of a record; that of its full columns, where those that are empty are of another.

    {"instruction": "", "output": "", "prompt": "Hi", "response": "Yo"}  ->  prompt-completion
    """
    for given in (without_empty(record), record):
        found = next((layout for layout in LAYOUTS if layout.recognises(given)), None)
        if found is not None or given is record:
            return found
    return None


def as_record(value: object, names: Names = NO_NAMES) -> JsonObject | None:
    """A parsed value as a record: a list of messages or of pairs is one without a name."""
    items = list_of(value)
    if items is None:
        record = object_of(value)
        return None if record is None else _renamed(record, names)
    first = _messages([items[0]], names) if items and names.fields else items[:1]
    if not items or not _opens_a_conversation((list_of(first) or [None])[0]):
        return None
    return _renamed({"conversations": items}, names)


def _opens_a_conversation(first: object) -> bool:
    """Whether a list that begins so is one conversation: a message or a pair, but no record."""
    if isinstance(first, list):
        return is_pair(cast(list[object], first))
    record = object_of(first)
    return record is not None and is_message(record) and recognised(record) is None


def is_record(value: object, names: Names = NO_NAMES) -> bool:
    """Whether a value is one conversation, not a list or a wrapping of several."""
    record = as_record(value, names)
    return record is not None and recognised(record) is not None


def _renamed(record: JsonObject, names: Names) -> JsonObject:
    """A record with its lists read, under our names of its columns and of its messages' fields."""
    record = with_lists(_in_small_letters(_with_names(record, names.columns)))
    if names.fields:
        record = {**record, **{key: _messages(record[key], names) for key in KEYS if key in record}}
    return record


def _in_small_letters(record: JsonObject) -> JsonObject:
    """A record whose columns have our names, also where its maker began them with a capital.

    {"Question": "Hi", "Answer": "Yo", "Topic": "x"}  ->  {"question": "Hi", "answer": "Yo", ...}
    """
    if all(map(str.islower, record)):
        return record
    small = {key: key.lower() for key in record if key.lower() in _COLUMNS - record.keys()}
    return _with_names(record, small)


def _messages(value: JsonValue, names: Names) -> JsonValue:
    return [
        _with_names(message, names.fields) if (message := object_of(one)) is not None else one
        for one in list_of(value) or ()
    ] or value


def _with_names(given: JsonObject, names: Mapping[str, str]) -> JsonObject:
    """An object under our names; what the user has named wins over what was called so already.

    {"text": "Hi", "body": "Hello"} with body=text  ->  {"text": "Hello", "text (2)": "Hi"}
    """
    if not names:
        return given
    own = [(key, value) for key, value in given.items() if key not in names]
    return named([*own, *((names[key], given[key]) for key in given if key in names)])


def seen_in(value: object) -> str:
    """What a first record holds, for people: `title (text), tags (list)`."""
    record = object_of(value)
    if record is None:
        return f"no object, but {_shown(value)[:_MAX_SHOWN_CHARS]}"
    fields = [f"{key} ({_kind(field)})" for key, field in list(record.items())[:_MAX_NAMED]]
    more = len(record) - _MAX_NAMED
    return ", ".join(fields) + (f" and {more} more" if more > 0 else "") or "an empty object"


def _shown(value: object) -> str:
    try:
        return orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:  # more than 254 levels
        return "lists in lists"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {"bool": "true or false", "str": "text", "list": "list", "dict": "object"}
    return kinds.get(type(value).__name__, "number")


def nearest(value: object) -> list[Layout]:
    """The two layouts whose fields are most like a value's."""
    keys = {key.lower() for key in (object_of(value) or {})}
    scores = [(-_likeness(keys, _fields(layout)), i) for i, layout in enumerate(LAYOUTS)]
    return [LAYOUTS[i] for _, i in sorted(scores)[:2]]


def _fields(layout: Layout) -> Iterable[str]:
    return orjson.loads(layout.example)


def _likeness(keys: set[str], fields: Iterable[str]) -> float:
    return sum(
        max((difflib.SequenceMatcher(None, key, field).ratio() for key in keys), default=0.0) ** 3
        for field in fields
    )
