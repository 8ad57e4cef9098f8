"""Calls and their results among the parts of a message, as Anthropic's Messages have them.

{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "Sunny."}]}

https://docs.anthropic.com/en/api/messages names them; the AI SDK's `tool-call` and `tool-result`
say the same. A message of several kinds is several turns.
"""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.content import (
    ignore_part,
    ignore_rest,
    kind_of,
    parts_of,
    text_of_content,
)
from apps.data.read.record.layout import RawConversation, Turn, object_of, size_of, text_of
from apps.data.read.record.question import text_of_value
from apps.data.read.record.tool_calls import ARGUMENTS, arguments_in, normalized

_CALLS = ("tool_use", "tool_call")
_RESULTS = ("tool_result",)
_IDS = ("tool_use_id", "tool_call_id", "toolCallId")
_NAMES = ("name", "tool_name", "toolName")
_GIVEN_BACK = ("content", "output", "result")


def has_tool_parts(content: object) -> bool:
    if isinstance(content, str):
        return False
    return any(_is_call(part) or _is_result(part) for part in parts_of(content) or ())


def turns_of_parts(content: object, role: str, conversation: RawConversation) -> list[Turn]:
    """The turns of one message, in the order of its parts.

    assistant: [text, tool_use]      ->  assistant with a call
    user: [tool_result, text]        ->  tool, user
    """
    turns: list[Turn] = []
    said: list[JsonValue] = []
    calls: list[JsonValue] = []
    for part in parts_of(content) or ():
        given = object_of(part)
        if given is not None and _is_result(given):
            turns += _spoken(role, said, calls, conversation)
            said, calls = [], []
            turns.append(_result(given, conversation))
        elif given is not None and role == "assistant" and _is_call(given):
            calls.append(_call(given, conversation))
        else:
            said.append(part)
    return turns + _spoken(role, said, calls, conversation)


def _spoken(
    role: str, said: list[JsonValue], calls: list[JsonValue], conversation: RawConversation
) -> list[Turn]:
    text = text_of_content(said, conversation) if said else None
    known = normalized(calls)
    if calls and known is None:
        ignore_part("tool_use", conversation)
    if text is None and known is None:
        return []
    return [Turn(role, text or "", size_of(text or ""), tool_calls=known)]


def _call(part: JsonObject, conversation: RawConversation) -> JsonObject:
    ignore_rest(part, ("type", *_NAMES, "id", *_IDS, *ARGUMENTS), conversation)
    function: JsonObject = {"name": text_of(part, *_NAMES), "arguments": arguments_in(part)}
    return {"id": text_of(part, "id", *_IDS) or None, "type": "function", "function": function}


def _result(part: JsonObject, conversation: RawConversation) -> Turn:
    """What a tool gave back: a text, parts, or a value that is written as JSON."""
    ignore_rest(part, ("type", *_IDS, *_NAMES, *_GIVEN_BACK), conversation)
    given = next((part[key] for key in _GIVEN_BACK if part.get(key) is not None), "")
    if kind_of(given) == "json":
        given = (object_of(given) or {}).get("value")
    is_content = _is_content(given)
    text = (text_of_content(given, conversation) if is_content else text_of_value(given)) or ""
    call_id, name = text_of(part, *_IDS) or None, text_of(part, *_NAMES) or None
    size = size_of(text) if is_content else 0
    return Turn("tool", text, size, tool_call_id=call_id, name=name)


def _is_content(given: JsonValue) -> bool:
    """Whether it is a text or parts, and no other value."""
    if isinstance(given, str):
        return True
    parts = parts_of(given)
    return parts is not None and all(isinstance(part, str) or kind_of(part) for part in parts)


def _is_call(part: object) -> bool:
    return _kind(part).endswith(_CALLS)


def _is_result(part: object) -> bool:
    return _kind(part).endswith(_RESULTS)


def _kind(part: object) -> str:
    """`server_tool_use` and `web_search_tool_result` are of the same kinds."""
    return kind_of(part).replace("-", "_")
