"""The list of messages of a record, under one of several keys, and what makes a record of it."""

import re

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.branches import branches_of
from apps.data.read.record.layout import (
    Names,
    RawConversation,
    Turn,
    Unreadable,
    list_of,
    object_of,
    size_of,
    text_of,
)
from apps.data.read.record.messages import WHO, is_message, read_messages, text_in
from apps.data.read.record.metadata import describe, leave_out
from apps.data.read.record.parse import parse_cell, parse_cell_mended
from apps.data.read.record.roles import role_of
from apps.data.read.record.rounds import is_pair

KEYS = (
    *("conversations", "messages", "conversation", "items", "dialogue", "dialog", "turns", "chat"),
    "contents",
)
_CONVERSATION_IDS = frozenset(
    (
        *("conversation_id", "conversationId", "conversation_hash", "session_id", "sessionId"),
        *("thread_id", "threadId", "chat_id", "chatId", "dialogue_id", "dialog_id", "topicId"),
    )
)
_CELLS = frozenset((*KEYS, "data", "history", "chat_messages", "mapping", "flags"))
"""Columns that no layout has as texts."""
_ANSWERS = ("chosen", "completion", "response", "answer", "output", "reply")
"""Columns that answer a list which ends with a question, as LLaMA-Factory's preferences have it."""
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
    """Key and list: of several the longest, for exporters fill one and leave the others empty; one
    of messages or pairs before those of anything else."""
    best: tuple[str, list[JsonValue]] | None = None
    for key in KEYS:
        value = record.get(key)
        if value is None:
            continue
        messages = list_in_cell(value)
        if messages is not None and (best is None or _is_fuller(messages, best[1])):
            best = key, messages
    return best


def _is_fuller(messages: list[JsonValue], others: list[JsonValue]) -> bool:
    ours, theirs = _opens_with_speech(messages), _opens_with_speech(others)
    return ours if ours != theirs else len(messages) > len(others)


def _opens_with_speech(messages: list[JsonValue]) -> bool:
    return bool(messages) and (is_message(messages[0]) or is_pair(messages[0]))


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
    _check_is_one(listed[1])
    conversation = RawConversation()
    shown, others = branches_of(listed[1])
    read_messages(shown, names, conversation)
    leave_out(conversation, "other_branch", map(text_in, others))
    read = [listed[0], *_empty_lists(record)]
    if conversation.turns and conversation.turns[-1].role in ("user", "tool"):
        read += _read_answer(record, names, conversation)
    describe(record, conversation, read)
    return conversation


def _check_is_one(messages: list[JsonValue]) -> None:
    """Raises Unreadable for the rows of a table of messages that are of several conversations."""
    first = object_of(messages[0]) if messages else None
    if first is None or len(first) <= 2 or _CONVERSATION_IDS.isdisjoint(first):
        return
    for key in _CONVERSATION_IDS & first.keys():
        if len({text_of(object_of(one) or {}, key) for one in messages} - {""}) > 1:
            raise Unreadable("several-conversations", len(messages))


def _read_answer(record: JsonObject, names: Names, conversation: RawConversation) -> list[str]:
    """The answer to the last question, where it stands in a column beside the list; the columns
    that were read.

    {"messages": [{"role": "user", ...}], "chosen": {"role": "assistant", ...}, "rejected": ...}

    A `chosen` text without a rejected one may be the name of the better column.
    """
    for key in _ANSWERS:
        value = _messages_in_cell(record.get(key))
        if isinstance(value, str) and value:
            if key == "chosen" and not isinstance(record.get("rejected"), str):
                continue
            conversation.turns.append(Turn("assistant", value, size_of(value)))
            return [key]
        answers = _as_list(value)
        if answers and all(map(_is_answer, answers)):
            read_messages(answers, names, conversation)
            return [key]
    return []


def _messages_in_cell(value: JsonValue) -> JsonValue:
    """A message or a list of them that a cell holds as text; other texts stay what they are."""
    if not isinstance(value, str) or not value.startswith(_OPENINGS):
        return value
    parsed = parse_cell(value)
    given = _as_list(parsed)
    return given if given and all(map(is_message, given)) else value


def _as_list(value: JsonValue) -> list[JsonValue]:
    """An object alone, or the items of a list; none of anything else."""
    return [value] if isinstance(value, dict) else list_of(value) or []


def _is_answer(value: object) -> bool:
    """Whether a value is an assistant's message."""
    who = (object_of(value) or {}).get
    return is_message(value) and role_of(next(filter(None, map(who, WHO)), None), {}) == "assistant"


def _empty_lists(record: JsonObject) -> tuple[str, ...]:
    return tuple(key for key in KEYS if not record.get(key))
