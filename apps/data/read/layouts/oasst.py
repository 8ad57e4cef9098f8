"""OpenAssistant: trees of messages, ranked by people; the best-ranked path is the conversation.

Two layouts: whole trees, one a record, and flat messages that name their parent, which are put
together to trees first. https://github.com/LAION-AI/Open-Assistant/tree/main/docs/docs/data
describes both.
"""

from collections.abc import Iterable, Iterator

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.layouts.oasst_tree import Node, best_path, is_live
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
from apps.data.read.record.metadata import leave_out
from apps.data.read.record.parse import as_line, with_halves
from apps.data.read.record.roles import role_of

_OF_TREE = ("prompt", "message_tree_id", "tree_state")
_OF_MESSAGE = frozenset(
    (
        *("message_id", "parent_id", "message_tree_id", "text", "role", "rank", "replies", "lang"),
        *("deleted", "review_result", "tree_state", "review_count", "synthetic", "model_name"),
        *("user_id", "created_date"),
    )
)


def _is_tree(record: JsonObject) -> bool:
    prompt = object_of(record.get("prompt"))
    return prompt is not None and "replies" in prompt and isinstance(prompt.get("text"), str)


def _is_message(record: JsonObject) -> bool:
    return "message_id" in record and "parent_id" in record and "text" in record


def _read_tree(record: JsonObject, names: Names) -> RawConversation:
    prompt = object_of(record.get("prompt"))
    if prompt is None:
        raise Unreadable("no-messages")
    root = _tree(prompt)
    path, others = best_path(root)
    roles = dict(names.roles)
    conversation = RawConversation(source_id=text_of(record, "message_tree_id"))
    if not is_live(root.message):
        path, others = [], [*path, *others]
    for node in path:
        text, role = node.message.get("text"), role_of(node.message.get("role"), roles)
        if not isinstance(text, str) or role is None:
            reason = "bad-message" if role else "unknown-role"
            raise Unreadable(reason, len(path) + len(others))
        conversation.turns.append(Turn(role, text, size_of(text)))
    leave_out(conversation, "other_branch", [text_of(node.message, "text") for node in others])
    fields = {key for node in path for key, value in node.message.items() if is_set(value)}
    conversation.ignored = [key for key, value in record.items() if key not in _OF_TREE and value]
    conversation.ignored += sorted(f"messages[].{key}" for key in fields - _OF_MESSAGE)
    return conversation


def _tree(prompt: JsonObject) -> Node:
    root = Node(prompt)
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for reply in list_of(node.message.get("replies")) or ():
            message = object_of(reply)
            if message is not None:
                node.replies.append(Node(message))
        waiting += node.replies
    return root


def trees_of(messages: Iterable[JsonObject]) -> Iterator[JsonObject]:
    """Flat messages as whole trees, in the order of their roots; no message is lost.

    A message whose parent is not there begins a tree of its own.

        m1 <- m2, m1 <- m3   ->   {"message_tree_id": "m1", "prompt": {m1, "replies": [m2, m3]}}
    """
    by_id: dict[str, JsonObject] = {}
    given: list[JsonObject] = [{**message, "replies": []} for message in messages]
    for message in given:
        by_id.setdefault(str(message.get("message_id")), message)
    roots: list[JsonObject] = []
    for message in given:
        parent = by_id.get(str(message.get("parent_id")))
        if parent is None or parent is message or not is_set(message.get("parent_id")):
            roots.append(message)
        else:
            _replies(parent).append(message)
    reached = {id(one) for root in roots for one in _below(root)}
    lost = [message for message in given if id(message) not in reached]  # in a circle or below one
    for message in lost:
        message["replies"] = []
    roots += lost
    for root in roots:
        tree_id = text_of(root, "message_tree_id", "message_id")
        yield {"message_tree_id": tree_id, "prompt": root}


def tree_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """JSON lines of messages as JSON lines of trees; a line that is no message stays itself."""
    messages: list[JsonObject] = []
    for line in lines:
        message = _parsed(line)
        if message is None:
            if line.strip():
                yield line.rstrip(b"\n") + b"\n"
        else:
            messages.append(message)
    for tree in trees_of(messages):
        yield from _line_of(tree)


def _parsed(line: bytes) -> JsonObject | None:
    message = object_of(with_halves(line))
    return message if message is not None and _is_message(message) else None


def _line_of(tree: JsonObject) -> Iterator[bytes]:
    """One line; the messages one by one, when the tree is deeper than JSON may be."""
    line = as_line(tree)
    if line is not None:
        yield line + b"\n"
        return
    for message in _below(object_of(tree["prompt"]) or {}):
        alone: JsonObject = {**message, "replies": []}
        yield (_line_of_one(alone) or _line_of_one(_shallow(alone)) or b"") + b"\n"


def _line_of_one(message: JsonObject) -> bytes | None:
    return as_line({"message_tree_id": "", "prompt": message})


def _shallow(message: JsonObject) -> JsonObject:
    """Without the fields that hold others: one of them is deeper than JSON may be."""
    plain = {key: value for key, value in message.items() if not isinstance(value, dict | list)}
    return {**plain, "replies": []}


def _below(root: JsonObject) -> Iterator[JsonObject]:
    waiting = [root]
    while waiting:
        message = waiting.pop()
        yield message
        waiting += [reply for reply in _replies(message) if isinstance(reply, dict)]


def _replies(message: JsonObject) -> list[JsonValue]:
    """The list that `trees_of` has put there."""
    replies = message["replies"]
    assert isinstance(replies, list)
    return replies


def _read_message(record: JsonObject, names: Names) -> RawConversation:
    """One that is left alone, or a tree of those that were put together."""
    return _read_tree(record if _is_tree(record) else {"prompt": record}, names)


TREES = Layout(
    name="oasst-trees",
    what="OpenAssistant trees: prompt with replies; the best-ranked path is taken",
    example='{"message_tree_id": "m1", "prompt": {"text": "Hi", "role": "prompter", "replies": '
    '[{"text": "Hello", "role": "assistant", "rank": 0, "replies": []}]}}',
    recognises=_is_tree,
    read=_read_tree,
)
MESSAGES = Layout(
    name="oasst-messages",
    what="OpenAssistant messages with message_id and parent_id, put together to trees",
    example='{"message_id": "m2", "parent_id": "m1", "text": "Hello", "role": "assistant", '
    '"rank": 0}',
    recognises=lambda record: _is_message(record) or _is_tree(record),
    read=_read_message,
    regrouped=tree_lines,
)
