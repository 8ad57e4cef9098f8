"""What records of most layouts say beside their messages: id, model, system text, flags, tools."""

from collections.abc import Iterable

from apps.common.json_value import JsonObject
from apps.data.read.record.content import text_of_content
from apps.data.read.record.flags import FLAGS, MODERATION, flags_of, labels_read, yes_or_no
from apps.data.read.record.layout import (
    LeftOut,
    RawConversation,
    Turn,
    is_set,
    size_of,
    text_of,
)
from apps.data.read.record.media import media_of_record
from apps.data.read.record.parse import parse_cell
from apps.data.read.record.tool_calls import functions_of

IDS = ("id", "conversation_id", "conversation_hash", "uuid", "prompt_id", "message_tree_id")
SYSTEM = (
    *("system", "system_prompt", "system_message", "system_instruction"),
    *("systemPrompt", "systemInstruction"),
)
_NOTHING = ("", "none", "null", "nan")
"""How tables print that nothing is there."""
_EMPTY_CELLS = ("[]", "{}")


def describe(record: JsonObject, conversation: RawConversation, carried: Iterable[str]) -> None:
    """Put what is around the messages on the conversation, and name what nothing carries; `carried`
    has been read already."""
    conversation.source_id = conversation.source_id or text_of(record, *IDS)
    conversation.model = conversation.model or text_of(record, "model") or None
    if len(record) <= 2 and "system" not in record and "system_prompt" not in record:
        read = {*carried, "id"} if conversation.source_id else set(carried)
        if all(key in read for key in record):
            return
    conversation.has_plugins = _has_any(record.get("plugins"))
    conversation.media += media_of_record(record, conversation)
    conversation.flags |= flags_of(record)
    read = {*carried, *MODERATION, "plugins"}
    read |= _put_tools(record, conversation) | _put_system(record, conversation)
    read |= labels_read(record, conversation.turns)
    read |= {
        key for key in IDS if (said := text_of(record, key)) and said == conversation.source_id
    }
    read |= {"model"} if text_of(record, "model") == conversation.model else set()
    conversation.ignored += [
        key
        for key, value in record.items()
        if key not in read
        and is_set(value)
        and value not in _EMPTY_CELLS
        and not (key in FLAGS and yes_or_no(value) is not None)
    ]


def _has_any(value: object) -> bool:
    """Whether a list has something in it; a table's cell holds one as text, and NaN for none."""
    if isinstance(value, str):
        if (listed := parse_cell(value)) is not None:
            return bool(listed)
        return value.strip().lower() not in _NOTHING and yes_or_no(value) is not False
    return is_set(value) and bool(value)


def _put_tools(record: JsonObject, conversation: RawConversation) -> set[str]:
    """The first list of functions; returns the columns that say what it says."""
    given = {key: functions_of(record[key]) for key in ("tools", "functions") if key in record}
    conversation.tools = next((tools for tools in given.values() if tools is not None), None)
    return {
        key for key, tools in given.items() if tools is not None and tools == conversation.tools
    }


def _put_system(record: JsonObject, conversation: RawConversation) -> set[str]:
    """A system column is the first turn, unless the messages have a system turn of their own.

    Returns the columns that say what that turn says.
    """
    read: set[str] = set()
    turns = conversation.turns
    for key in SYSTEM:
        text = _system_text(record.get(key), conversation)
        if not text:
            continue
        if not (turns and turns[0].role == "system"):
            turns.insert(0, Turn("system", text, size_of(text)))
        if turns[0].text.strip() == text.strip():
            read.add(key)
    return read


def _system_text(value: object, conversation: RawConversation) -> str | None:
    """A text or parts; a table's cell holds parts as text."""
    if isinstance(value, str) and not value.startswith("[{"):
        return value
    parts = parse_cell(value) if isinstance(value, str) else value
    text = None if parts is None else text_of_content(parts, conversation)
    return text if text is not None or not isinstance(value, str) else value


def leave_out(conversation: RawConversation, reason: str, texts: Iterable[str]) -> None:
    """Messages that are no part of the conversation."""
    sizes = [size_of(text) for text in texts]
    if sizes:
        conversation.left_out.append(LeftOut(reason, len(sizes), sum(sizes)))
