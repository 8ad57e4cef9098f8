"""Claude's data export (conversations.json): `chat_messages` with sender, text and parts."""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.content import text_of_content
from apps.data.read.record.layout import (
    Layout,
    Names,
    RawConversation,
    Turn,
    Unreadable,
    is_set,
    list_of,
    object_of,
    size_of,
    text_of,
)
from apps.data.read.record.metadata import describe, leave_out
from apps.data.read.record.roles import role_of

_OF_CONVERSATION = ("chat_messages", "name", "summary", "created_at", "updated_at", "account")
_HIDDEN_PARTS = frozenset(
    ("thinking", "redacted_thinking", "tool_use", "tool_result", "token_budget")
)


def _recognises(record: JsonObject) -> bool:
    return isinstance(record.get("chat_messages"), list)


def _read(record: JsonObject, names: Names) -> RawConversation:
    messages = list_of(record.get("chat_messages"))
    if messages is None:
        raise Unreadable("no-messages")
    conversation = RawConversation()
    hidden: list[str] = []
    for given in messages:
        message = object_of(given)
        if message is None:
            raise Unreadable("bad-message", len(messages))
        role = role_of(message.get("sender"), dict(names.roles))
        if role is None:
            raise Unreadable("unknown-role", len(messages))
        text = _text(message, conversation, hidden)
        conversation.turns.append(Turn(role, text, size_of(text)))
    leave_out(conversation, "hidden", hidden)
    describe(record, conversation, _OF_CONVERSATION)
    return conversation


def _text(message: JsonObject, conversation: RawConversation, hidden: list[str]) -> str:
    """The parts say more exactly than `text` what is prose; files count as media."""
    for key in ("attachments", "files"):
        if is_set(message.get(key)):
            conversation.media.append(key)
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
