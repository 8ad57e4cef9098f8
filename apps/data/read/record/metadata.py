"""What records of most layouts say beside their messages: id, model, system text, flags, tools."""

from collections.abc import Iterable

from apps.common.json_value import JsonObject
from apps.data.read.record.flags import FLAGS, MODERATION, flags_of, yes_or_no
from apps.data.read.record.layout import (
    LeftOut,
    RawConversation,
    Turn,
    is_set,
    size_of,
    text_of,
)
from apps.data.read.record.media import media_of_record
from apps.data.read.record.tool_calls import functions_of

IDS = ("id", "conversation_id", "conversation_hash", "uuid", "prompt_id", "message_tree_id")
SYSTEM = ("system", "system_prompt", "system_message", "system_instruction")
_CARRIED = frozenset((*IDS, *SYSTEM, *MODERATION, "model", "plugins", "tools"))


def describe(record: JsonObject, conversation: RawConversation, carried: Iterable[str]) -> None:
    """Put what is around the messages on the conversation; `carried` has been read already."""
    conversation.source_id = conversation.source_id or text_of(record, *IDS)
    conversation.model = conversation.model or text_of(record, "model") or None
    if len(record) <= 2 and "system" not in record and "system_prompt" not in record:
        known = frozenset((*carried, "id"))
        if all(key in known for key in record):
            return
    conversation.has_plugins = bool(record.get("plugins"))
    conversation.media += media_of_record(record, conversation)
    conversation.flags |= flags_of(record)
    conversation.tools = functions_of(record.get("tools") or record.get("functions"))
    _put_system(record, conversation)
    known = _CARRIED | frozenset(carried)
    conversation.ignored += [
        key
        for key, value in record.items()
        if key not in known
        and is_set(value)
        and not (key == "functions" and conversation.tools is not None)
        and not (key in FLAGS and yes_or_no(value) is not None)
    ]


def _put_system(record: JsonObject, conversation: RawConversation) -> None:
    """A system column is the first turn, unless the messages have a system turn of their own."""
    text = text_of(record, *SYSTEM)
    if not text:
        return
    turns = conversation.turns
    if not (turns and turns[0].role == "system"):
        turns.insert(0, Turn("system", text, size_of(text)))
    elif turns[0].text.strip() != text.strip():
        conversation.ignored.append(next(key for key in SYSTEM if text_of(record, key)))


def leave_out(conversation: RawConversation, reason: str, texts: Iterable[str]) -> None:
    """Messages that are no part of the conversation."""
    sizes = [size_of(text) for text in texts]
    if sizes:
        conversation.left_out.append(LeftOut(reason, len(sizes), sum(sizes)))
