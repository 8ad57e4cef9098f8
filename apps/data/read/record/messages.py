"""Lists of messages: who and what under several names, with everything a message may say.

{"from": "human", "value": "Hi"}    {"role": "user", "content": "Hi"}    {"author": ...}
"""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.content import text_of_content
from apps.data.read.record.flags import FLAGS, MODERATION, WEIGHTS, flags_of, is_learned, yes_or_no
from apps.data.read.record.layout import (
    Names,
    RawConversation,
    Turn,
    Unreadable,
    is_set,
    object_of,
    size_of,
    text_of,
)
from apps.data.read.record.media import media_of_message
from apps.data.read.record.roles import CALLS, role_of
from apps.data.read.record.tool_calls import CALL_FIELDS, call_turn, calls_of, normalized
from apps.data.read.record.tool_parts import has_tool_parts, turns_of_parts
from apps.data.read.record.written_calls import with_written_calls

WHO = ("from", "role", "author", "speaker", "sender")
WHAT = ("value", "content", "text", "message", "parts")


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
        conversation.turns += _turns(message, roles, conversation, len(messages))
    conversation.turns = with_written_calls(conversation.turns)


def text_in(message: JsonObject) -> str:
    """What a message says that is no part of the conversation."""
    return text_of_content(message.get(_said_in(message)), RawConversation()) or ""


def speaker_in(message: JsonObject) -> JsonValue:
    """Who says a message, as it names them; None for nobody."""
    return _speaker(message.get(_first(message, WHO)))


def _turns(
    message: JsonObject, roles: dict[str, str], conversation: RawConversation, num_messages: int
) -> list[Turn]:
    """One, or several of a message whose parts are calls or results of tools."""
    who, what = _first(message, WHO), _said_in(message)
    name, said = _speaker(message.get(who)), message.get(what)
    if len(message) == 2 and isinstance(said, str) and not roles:
        role = role_of(name, roles)
        if role is not None:
            return [Turn(role, said, size_of(said))]
    conversation.media += media_of_message(message)
    if has_tool_parts(said):
        role = role_of(name, roles)
        turns = turns_of_parts(said, role, conversation) if role else []
        if not turns:
            raise Unreadable("bad-message" if role else "unknown-role", num_messages)
    else:
        turns = [_turn(message, name, said, roles, conversation, num_messages)]
    if len(message) > 2:
        learned = is_learned(message)
        for turn in turns:
            turn.is_learned = learned
        _count_ignored(message, turns, who, what, conversation, roles)
    return turns


def _turn(
    message: JsonObject,
    name: JsonValue,
    said: JsonValue,
    roles: dict[str, str],
    conversation: RawConversation,
    num_messages: int,
) -> Turn:
    text = text_of_content(said, conversation)
    turn = _only_calls(name, text, roles, num_messages) or _with_calls(
        message, text, role_of(name, roles), num_messages
    )
    turn.raw_bytes = size_of(said) if isinstance(said, str) else size_of(turn.text)
    if turn.role == "tool":
        turn.tool_call_id = text_of(message, "tool_call_id") or None
        turn.name = text_of(message, "name") or None
    return turn


def _only_calls(
    name: JsonValue, text: str | None, roles: dict[str, str], num_messages: int
) -> Turn | None:
    """The turn of a speaker whose texts are calls."""
    if not isinstance(name, str) or name.strip().lower() not in CALLS or name in roles:
        return None
    turn = call_turn(text) if text else None
    if turn is None:
        raise Unreadable("bad-tool-call", num_messages)
    return turn


def _with_calls(message: JsonObject, text: str | None, role: str | None, num_messages: int) -> Turn:
    calls = calls_of(message)
    if text is None and calls is None:
        raise Unreadable("bad-message", num_messages)
    if role is None:
        raise Unreadable("unknown-role", num_messages)
    return Turn(role, text or "", 0, tool_calls=calls if role == "assistant" else None)


def _speaker(name: JsonValue) -> JsonValue:
    author = object_of(name)
    return name if author is None else author.get("role")


def _first(message: JsonObject, keys: tuple[str, ...]) -> str:
    """A Parquet of mixed dumps has every name of both, most of them null."""
    if message.get(keys[0]) is None:
        for key in keys:
            if message.get(key) is not None:
                return key
    return keys[0]


def _said_in(message: JsonObject) -> str:
    """An exporter that fills one of several leaves the others null or empty."""
    first = _first(message, WHAT)
    if message.get(first):
        return first
    others = (key for key in WHAT if isinstance(said := message.get(key), str | list) and said)
    return next(others, first)


def _count_ignored(
    message: JsonObject,
    turns: list[Turn],
    who: str,
    what: str,
    conversation: RawConversation,
    roles: dict[str, str],
) -> None:
    """Name the fields that say more than the turns."""
    conversation.flags |= flags_of(message)
    for key, value in message.items():
        if key in (who, what) or not is_set(value):
            continue
        if key in WHAT:
            is_read = value == message.get(what)
        elif key in WHO:
            said_by = role_of(_speaker(message.get(who)), roles)
            is_read = role_of(_speaker(value), roles) == said_by
        else:
            is_read = _is_read(key, value, turns)
        if not is_read:
            conversation.ignored.append(f"messages[].{key}")


def _is_read(key: str, value: JsonValue, turns: list[Turn]) -> bool:
    """Whether a field beside speaker and text is on the turns, or a flag of the conversation."""
    if key in FLAGS or key in WEIGHTS:
        return yes_or_no(value) is not None
    if key in ("tool_call_id", "name"):
        return any(turn.role == "tool" for turn in turns)
    if key in CALL_FIELDS:
        calls = normalized(value)
        return calls is not None and any(turn.tool_calls == calls for turn in turns)
    return key in MODERATION
