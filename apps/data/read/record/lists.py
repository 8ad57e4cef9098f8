"""The list of messages of a record, under one of several keys, and what makes a record of it."""

import re

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import (
    Names,
    RawConversation,
    Unreadable,
    list_of,
    object_of,
)
from apps.data.read.record.messages import WHO, is_message, read_messages
from apps.data.read.record.metadata import describe
from apps.data.read.record.parse import parse_cell, parse_cell_mended

KEYS = ("conversations", "messages", "conversation", "items", "dialogue", "dialog", "turns", "chat")
_CELLS = frozenset((*KEYS, "data", "history", "chat_messages", "mapping", "flags"))
"""Columns that no layout has as texts."""
_OPENINGS = ("[", "{")
_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def with_lists(record: JsonObject) -> JsonObject:
    """A table's row, its lists and objects read; a cell holds them as text.

    {"messages": '[{"role": "user", "content": "Hi"}]'}
    ->  {"messages": [{"role": "user", "content": "Hi"}]}
    """
    read: JsonObject = {}
    for key, cell in record.items():
        if key in _CELLS and isinstance(cell, str) and cell.startswith(_OPENINGS):
            value = parse_cell(cell)
            if value is not None:
                read[key] = value
    return {**record, **read} if read else record


def mended_in_cells(record: JsonObject) -> list[str]:
    """What `parse_mended` says of the lists that are texts in a record."""
    mended: list[str] = []
    for cell in record.values():
        if isinstance(cell, str) and cell.startswith(_OPENINGS) and _HALF.search(cell):
            mended += parse_cell_mended(cell)[1]
    return mended


def list_in_cell(value: object) -> list[JsonValue] | None:
    """A list; a table's cell holds one as text, and may hold messages as columns."""
    if isinstance(value, str):
        value = parse_cell(value)
    columns = object_of(value)
    return list_of(value) if columns is None else _of_columns(columns)


def _of_columns(columns: JsonObject) -> list[JsonValue] | None:
    """A `Sequence` of the `datasets` library, which stores a list of objects so.

    {"role": ["user", "assistant"], "content": ["Hi", "Yo"]}
    ->  [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    """
    lists = [given for value in columns.values() if (given := list_of(value)) is not None]
    if not any(key in columns for key in WHO) or len(lists) < len(columns):
        return None
    if len({len(one) for one in lists}) != 1:
        return None
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def message_list(record: JsonObject) -> tuple[str, list[JsonValue]] | None:
    """Key and list: of several the longest, for exporters fill one and leave the others empty."""
    best: tuple[str, list[JsonValue]] | None = None
    for key in KEYS:
        value = record.get(key)
        if value is None:
            continue
        messages = list_in_cell(value)
        if messages is not None and (best is None or len(messages) > len(best[1])):
            best = key, messages
    return best


def holds_messages(record: JsonObject, names_who: tuple[str, ...] = WHO) -> bool:
    """Whether a record has a list of messages; an empty one is one too."""
    listed = message_list(record)
    if listed is None:
        return False
    if not listed[1]:
        return True
    first = object_of(listed[1][0])
    is_named = first is not None and any(first.get(key) is not None for key in names_who)
    return is_named and is_message(first)


def read_list(record: JsonObject, names: Names) -> RawConversation:
    """The whole record. Raises Unreadable."""
    listed = message_list(record)
    if listed is None:
        raise Unreadable("no-messages")
    conversation = RawConversation()
    read_messages(listed[1], names, conversation)
    describe(record, conversation, (listed[0], *_empty_lists(record)))
    return conversation


def _empty_lists(record: JsonObject) -> tuple[str, ...]:
    return tuple(key for key in KEYS if not record.get(key))
