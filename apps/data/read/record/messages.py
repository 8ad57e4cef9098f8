"""Lists of messages: who and what under several names, with everything a message may say.

{"from": "human", "value": "Hi"}    {"role": "user", "content": "Hi"}    {"author": ...}
"""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.content import text_of_content
from apps.data.read.record.flags import FLAGS, MODERATION, flags_of, yes_or_no
from apps.data.read.record.layout import (
    Names,
    RawConversation,
    Turn,
    Unreadable,
    is_set,
    object_of,
    size_of,
)
from apps.data.read.record.media import media_of_message
from apps.data.read.record.roles import CALLS, role_of
from apps.data.read.record.tool_calls import CALL_FIELDS, call_turn, calls_of

WHO = ("from", "role", "author", "speaker", "sender")
WHAT = ("value", "content", "text", "message")
_WEIGHTS = ("weight", "train", "training", "loss")
_CARRIED = frozenset((*WHO, *WHAT, *_WEIGHTS, *CALL_FIELDS, "tool_call_id"))


def is_message(value: object) -> bool:
    """Whether a value has a speaker and something said."""
    message = object_of(value)
    return (
        message is not None
        and any(key in message for key in WHO)
        and any(key in message for key in (*WHAT, *CALL_FIELDS))
    )


def read_messages(messages: list[JsonValue], names: Names, conversation: RawConversation) -> None:
    """Add the turns of a list. Raises Unreadable."""
    roles = dict(names.roles)
    for value in messages:
        message = object_of(value)
        if message is None:
            raise Unreadable("bad-message", len(messages))
        conversation.turns.append(_turn(message, roles, conversation, len(messages)))


def _turn(
    message: JsonObject, roles: dict[str, str], conversation: RawConversation, num_messages: int
) -> Turn:
    name, said = who_and_what(message)
    if len(message) == 2 and isinstance(said, str) and not roles:
        role = role_of(name, roles)
        if role is not None:
            return Turn(role, said, size_of(said))
    if len(message) > 2:
        _count_ignored(message, conversation)
        conversation.media += media_of_message(message)
    calls = calls_of(message) if len(message) > 2 or said is None else None
    text = said if isinstance(said, str) else text_of_content(said, conversation.media)
    if text is None:
        if calls is None:
            raise Unreadable("bad-message", num_messages)
        text = ""
    if isinstance(name, str) and name.strip().lower() in CALLS and name not in roles:
        turn = call_turn(text)
        if turn is None:
            raise Unreadable("bad-tool-call", num_messages)
        return turn
    role = role_of(name, roles)
    if role is None:
        raise Unreadable("unknown-role", num_messages)
    size = size_of(said) if isinstance(said, str) else size_of(text)
    if len(message) <= 2:
        return Turn(role, text, size)
    return Turn(
        role,
        text,
        size,
        is_learned=_is_learned(message),
        tool_calls=calls if role == "assistant" else None,
        tool_call_id=_text(message, "tool_call_id") if role == "tool" else None,
        name=_text(message, "name") if role == "tool" else None,
    )


def who_and_what(message: JsonObject) -> tuple[JsonValue, JsonValue]:
    """A Parquet of mixed dumps has every name of both, most of them null."""
    name = message.get("from")
    said = message.get("value")
    if name is None:
        name = next((v for key in WHO if (v := message.get(key)) is not None), None)
    if said is None:
        said = next((v for key in WHAT if (v := message.get(key)) is not None), None)
    author = object_of(name)
    return (author.get("role") if author is not None else name), said


def _is_learned(message: JsonObject) -> bool:
    """`weight: 0` and `train: false` keep a turn in the context and out of the loss."""
    given = (message.get(key) for key in _WEIGHTS)
    return all(value is None or yes_or_no(value) is not False for value in given)


def _text(message: JsonObject, key: str) -> str | None:
    value = message.get(key)
    return value if isinstance(value, str) and value else None


def _count_ignored(message: JsonObject, conversation: RawConversation) -> None:
    conversation.flags |= flags_of(message)
    for key, value in message.items():
        if key in MODERATION or (key in FLAGS and yes_or_no(value) is not None):
            continue
        if key == "name" and message.get("role") in ("tool", "function"):
            continue
        if (key not in _CARRIED and is_set(value) and value is not False) or (
            key == "weight" and yes_or_no(value) is None
        ):
            conversation.ignored.append(f"messages[].{key}")
