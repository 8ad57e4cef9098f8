"""ChatGPT's data export (conversations.json): a `mapping` of nodes; the active branch is taken.

The branch leads from `current_node` to the root. What ChatGPT hides from its own page (its memory,
its instructions, its thoughts) is no part of the conversation, and is counted.
"""

import orjson

from apps.common.json_value import JsonObject
from apps.data.read.layouts.chatgpt_citations import without_citations
from apps.data.read.record.content import text_of_content
from apps.data.read.record.layout import (
    Layout,
    Names,
    RawConversation,
    Turn,
    Unreadable,
    fields_beside,
    object_of,
    size_of,
    text_of,
)
from apps.data.read.record.metadata import describe, leave_out
from apps.data.read.record.roles import role_of

_HIDDEN_KINDS = frozenset(
    (
        *("thoughts", "reasoning_recap", "model_editable_context", "user_editable_context"),
        *("tether_browsing_display", "system_error"),
    )
)
_OF_THE_TREE = ("mapping", "current_node", "title", "create_time", "update_time")
_OF_NODE = frozenset(("id", "message", "parent", "children"))
_OF_MESSAGE = frozenset(
    (
        *("id", "author", "create_time", "update_time", "content", "status", "end_turn", "weight"),
        *("metadata", "recipient", "channel"),
    )
)
_MAX_NODES = 1_000_000


def _recognises(record: JsonObject) -> bool:
    mapping = object_of(record.get("mapping"))
    if mapping is None:
        return False
    first = object_of(next(iter(mapping.values()), None))
    if first is None or "message" not in first:
        return False
    messages = (message for key in mapping if (message := _message(mapping, key)))
    return "author" in next(messages, {"author": None})  # DeepSeek's export has trees without


def _read(record: JsonObject, names: Names) -> RawConversation:
    mapping = object_of(record.get("mapping"))
    if mapping is None:
        raise Unreadable("no-messages")
    branch = _branch(mapping, text_of(record, "current_node"))
    conversation = RawConversation(model=text_of(record, "default_model_slug") or None)
    hidden: list[str] = []
    for key in branch:
        message = _message(mapping, key)
        _take(message, names, conversation, hidden)
        node = object_of(mapping[key]) or {}
        unread = [*fields_beside(node, _OF_NODE), *fields_beside(message, _OF_MESSAGE)]
        conversation.ignored += [f"messages[].{key}" for key in unread]
    leave_out(conversation, "hidden", hidden)
    on_branch = set(branch)
    others = [_message(mapping, key) for key in mapping if key not in on_branch]
    texts = [text for message in others if message and (text := _text(message, RawConversation()))]
    leave_out(conversation, "other_branch", texts)
    describe(record, conversation, (*_OF_THE_TREE, "default_model_slug"))
    return conversation


def _branch(mapping: JsonObject, last: str) -> list[str]:
    """Keys of the nodes from the root to `last`, or to the last leaf when it is not there."""
    key = last if last in mapping else _last_leaf(mapping)
    keys: list[str] = []
    seen: set[str] = set()
    while key in mapping and key not in seen and len(keys) < _MAX_NODES:
        seen.add(key)
        keys.append(key)
        key = str((object_of(mapping[key]) or {}).get("parent") or "")
    return keys[::-1]


def _last_leaf(mapping: JsonObject) -> str:
    leaves = [key for key in mapping if not (object_of(mapping[key]) or {}).get("children")]
    return leaves[-1] if leaves else next(iter(mapping), "")


def _message(mapping: JsonObject, key: str) -> JsonObject:
    return object_of((object_of(mapping[key]) or {}).get("message")) or {}


def _text(message: JsonObject, conversation: RawConversation) -> str:
    content = object_of(message.get("content")) or {}
    return text_of_content(content, conversation) or ""


def _take(
    message: JsonObject, names: Names, conversation: RawConversation, hidden: list[str]
) -> None:
    content = object_of(message.get("content")) or {}
    metadata = object_of(message.get("metadata")) or {}
    own = RawConversation()
    text = _text(message, own)
    conversation.ignored += own.ignored
    if not own.media and metadata.get("attachments"):
        own.media.append("attachments")
    if not text and not own.media:
        return
    kind = str(content.get("content_type") or "text")
    if kind in _HIDDEN_KINDS or metadata.get("is_visually_hidden_from_conversation") is True:
        hidden.append(text)
        return
    conversation.media += own.media
    author = object_of(message.get("author")) or {}
    role = role_of(author.get("role"), dict(names.roles))
    if role is None:
        raise Unreadable("unknown-role", 1)
    conversation.model = text_of(metadata, "model_slug") or conversation.model
    turn = _turn(role, text, message, author)
    if role == "assistant" and turn.tool_calls is None:
        turn = _without_citations(turn, conversation)
    conversation.turns.append(turn)


def _without_citations(turn: Turn, conversation: RawConversation) -> Turn:
    shown = turn.with_text(without_citations(turn.text))
    if shown is not turn:
        conversation.repaired["citations"] += 1
    return shown


def _turn(role: str, text: str, message: JsonObject, author: JsonObject) -> Turn:
    """What the assistant sends to a tool (`recipient`) is a call, whatever it is written in."""
    recipient = text_of(message, "recipient") or "all"
    weight = message.get("weight")
    is_learned = weight is None or bool(weight)
    if role == "assistant" and recipient != "all":
        function = {"name": recipient, "arguments": {"input": text}}
        calls = orjson.dumps([{"type": "function", "function": function}]).decode()
        return Turn(role, "", size_of(text), is_learned=is_learned, tool_calls=calls)
    name = text_of(author, "name") or None
    return Turn(
        role, text, size_of(text), is_learned=is_learned, name=name if role == "tool" else None
    )


LAYOUT = Layout(
    name="chatgpt-export",
    what="ChatGPT's data export, as JSON or as the ZIP that comes by mail; the active branch",
    example='{"title": "Bread", "mapping": {"u": {"message": {"author": {"role": "user"}, '
    '"content": {"content_type": "text", "parts": ["Hi"]}}, "parent": null, "children": ["a"]}, '
    '"a": {"message": {"author": {"role": "assistant"}, "content": {"content_type": "text", '
    '"parts": ["Hello"]}}, "parent": "u", "children": []}}, "current_node": "a"}',
    recognises=_recognises,
    read=_read,
)
