"""Claude's data export (conversations.json): `chat_messages` with sender, text and parts.

Each message names its parent; of several branches one is the conversation (`record/branches.py`).
"""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.branches import branches_of
from apps.data.read.record.content import text_of_content
from apps.data.read.record.layout import (
    Layout,
    Names,
    RawConversation,
    Turn,
    Unreadable,
    fields_beside,
    list_of,
    object_of,
    size_of,
    text_of,
)
from apps.data.read.record.metadata import describe, leave_out
from apps.data.read.record.roles import role_of

_LEAF = "current_leaf_message_uuid"
_OF_CONVERSATION = ("chat_messages", "name", "summary", "created_at", "updated_at", "account")
_OF_MESSAGE = frozenset(
    (
        *("uuid", "parent_message_uuid", "sender", "text", "content", "index"),
        *("attachments", "files", "created_at", "updated_at"),
    )
)
_HIDDEN_PARTS = frozenset(
    ("thinking", "redacted_thinking", "tool_use", "tool_result", "token_budget")
)


def _recognises(record: JsonObject) -> bool:
    return isinstance(record.get("chat_messages"), list)


def _read(record: JsonObject, names: Names) -> RawConversation:
    messages = list_of(record.get("chat_messages"))
    if messages is None:
        raise Unreadable("no-messages")
    if not all(isinstance(message, dict) for message in messages):
        raise Unreadable("bad-message", len(messages))
    conversation = RawConversation()
    hidden: list[str] = []
    shown, others = branches_of(messages, text_of(record, _LEAF))
    for message in filter(None, map(object_of, shown)):
        role = role_of(message.get("sender"), dict(names.roles))
        if role is None:
            raise Unreadable("unknown-role", len(messages))
        text = _text(message, conversation, hidden)
        conversation.turns.append(Turn(role, text, size_of(text)))
        unread = fields_beside(message, _OF_MESSAGE)
        conversation.ignored += [f"messages[].{key}" for key in unread]
    texts = [_text(message, RawConversation(), []) for message in others]
    leave_out(conversation, "other_branch", texts)
    leave_out(conversation, "hidden", hidden)
    describe(record, conversation, (*_OF_CONVERSATION, _LEAF))
    return conversation


def _text(message: JsonObject, conversation: RawConversation, hidden: list[str]) -> str:
    """What is written, and below it the text of what is attached; other files count as media."""
    attached: list[str] = []
    names: set[str] = set()
    for key in ("attachments", "files"):
        for one in list_of(message.get(key)) or ():
            file = object_of(one) or {}
            name = text_of(file, "file_name")
            if text := text_of(file, "extracted_content"):
                attached.append(text)
                names.add(name)
            elif name not in names:
                conversation.media.append(key)
    return "\n\n".join(filter(None, (_written(message, conversation, hidden), *attached)))


def _written(message: JsonObject, conversation: RawConversation, hidden: list[str]) -> str:
    """The parts say more exactly than `text` what is prose."""
    parts = list_of(message.get("content"))
    if not parts:
        return text_of(message, "text")
    shown: list[JsonValue] = []
    for part in parts:
        given = object_of(part)
        if given is not None and given.get("type") in _HIDDEN_PARTS:
            hidden.append(text_of(given, "thinking", "text", "name"))
        else:
            shown.append(part)
    return (text_of_content(shown, conversation) or "") if shown else text_of(message, "text")


LAYOUT = Layout(
    name="claude-export",
    what="Claude's data export: chat_messages with sender and text",
    example='{"uuid": "a", "name": "Bread", "chat_messages": [{"sender": "human", "text": "Hi"}, '
    '{"sender": "assistant", "text": "Hello"}]}',
    recognises=_recognises,
    read=_read,
)
