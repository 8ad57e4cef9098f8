"""Calls of functions, in the one form that templates know."""

import functools
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import orjson

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import LeftOut, RawConversation, Turn, list_of, object_of, size_of
from apps.data.read.record.parse import parse_cell

CALL_FIELDS = ("tool_calls", "function_call")
ARGUMENTS = ("arguments", "parameters", "args", "input")
"""Names that formats give to what a function is called with."""


def calls_of(message: JsonObject) -> str | None:
    """The calls of an assistant's message as JSON; None when it makes none.

    {"function_call": {"name": "f", "arguments": "{\\"x\\": 1}"}}
    ->  [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    """
    for key in CALL_FIELDS:
        if (given := message.get(key)) and (calls := normalized(given)) is not None:
            return calls
    return None


def normalized(given: object) -> str | None:
    """None when it is no list of calls with names. Nulls in a text are meant; see `_own`."""
    if not given:
        return None
    is_text = isinstance(given, str)
    if isinstance(given, str):
        given = parse_cell(given)
    calls = [_call(one, is_text=is_text) for one in (list_of(given) or [given])]
    known = [call for call in calls if call is not None]
    return orjson.dumps(known).decode() if known and len(known) == len(calls) else None


def _call(given: object, *, is_text: bool) -> JsonObject | None:
    is_text = is_text or isinstance(given, str)
    call = object_of(_parsed(given) if isinstance(given, str) else given)
    if call is None:
        return None
    function = object_of(call.get("function")) or call
    name = function.get("name") or call.get("function")
    if not isinstance(name, str) or not name:
        return None
    arguments = arguments_in(function)
    if arguments is None:
        arguments = dict[str, JsonValue]()
    if isinstance(arguments, str):
        arguments = arguments if (value := _parsed(arguments)) is None else value
    elif not is_text:
        arguments = _own(arguments)
    made: JsonObject = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": call["id"], **made} if isinstance(call.get("id"), str) else made


def arguments_in(call: JsonObject) -> JsonValue:
    """What a function is called with; None for nothing."""
    return next((call[key] for key in ARGUMENTS if call.get(key) is not None), None)


def _own(value: JsonValue, but: str = "") -> JsonValue:
    """Without nulls: a table gives every object the names of all, null where it has none.

    Those of the name `but` stay, for they may be meant.

    {"city": "Linz", "zone": None}  ->  {"city": "Linz"}
    """
    if isinstance(value, list):
        return [_own(one, but) for one in value]
    if isinstance(value, dict):
        own = ((key, one) for key, one in value.items() if one is not None or key == but)
        return {key: _own(one, but) for key, one in own}
    return value


def _parsed(text: str) -> JsonValue:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def functions_of(given: object) -> str | None:
    """The functions a record offers, as JSON; None when there are none that a template can show."""
    is_text = isinstance(given, str)
    functions = list_of(parse_cell(given) if isinstance(given, str) else given)
    if not functions or not all(isinstance(one, dict) for one in functions):
        return None
    if not is_text:
        functions = [_own(one, but="default") for one in functions]
    return orjson.dumps([_function(one) for one in functions]).decode()


def _function(given: JsonValue) -> JsonValue:
    """Anthropic's in the form that templates know."""
    function = object_of(given) or {}
    if "input_schema" not in function or not isinstance(function.get("name"), str):
        return given
    named = {"input_schema": "parameters"}
    made: JsonObject = {
        named.get(key, key): value
        for key, value in function.items()
        if key in ("name", "description", "input_schema")
    }
    return {"type": "function", "function": made}


def call_turn(text: str) -> Turn | None:
    """A turn whose text is nothing but calls, as ShareGPT dumps write them."""
    calls = normalized(text)
    return None if calls is None else Turn("assistant", "", size_of(text), tool_calls=calls)


class Said(Protocol):
    """A turn of a conversation, or a message of one that is clean."""

    @property
    def role(self) -> str: ...
    @property
    def tool_calls(self) -> str | None: ...


def is_of_tools(turn: Said) -> bool:
    return turn.role == "tool" or turn.tool_calls is not None


T = TypeVar("T", bound=Said)


def answers_around_tools(turns: Sequence[T], said_by: Callable[[T], str]) -> list[list[T]]:
    """Without what tools said and calls without text; what is said around a call is one group.

    user, assistant "Let me look." + call, tool, assistant "Sunny."
    ->  [user], [assistant "Let me look." + call, assistant "Sunny."]
    """
    groups: list[list[T]] = []
    is_after_tools = False
    for turn in turns:
        if is_only_of_tools(turn, said_by(turn)):
            is_after_tools = True
            continue
        if is_after_tools and groups and groups[-1][-1].role == turn.role == "assistant":
            groups[-1].append(turn)
        else:
            groups.append([turn])
        is_after_tools = turn.tool_calls is not None
    return groups


def is_only_of_tools(turn: Said, text: str) -> bool:
    return turn.role == "tool" or (turn.tool_calls is not None and not text.strip())


def without_tools(conversation: RawConversation) -> None:
    """What an assistant said before and after a call becomes one answer; the functions go too, or
    a model would learn that it has some and calls none."""
    gone = [turn.text for turn in conversation.turns if is_only_of_tools(turn, turn.text)]
    groups = answers_around_tools(conversation.turns, lambda turn: turn.text)
    conversation.turns = [functools.reduce(Turn.joined_with, group) for group in groups]
    for turn in conversation.turns:
        turn.tool_calls = None
    if gone:
        size = sum(size_of(text) for text in gone)
        conversation.left_out.append(LeftOut("tools", len(gone), size))
    if conversation.tools is not None:
        conversation.tools = None
        conversation.ignored.append("tools")
