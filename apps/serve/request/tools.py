"""Tool calls: what the model writes and what OpenAI's clients expect.

Read are the forms that open models are trained on: Hermes and Qwen
(`<tool_call>{...}</tool_call>`), Mistral (`[TOOL_CALLS][...]`), LLaMA 3 (the whole answer is
`{"name": ..., "parameters": ...}`, or several with semicolons between them).
"""

import re
import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from apps.serve.engine.protocol import Grammar
from apps.serve.errors import ApiError
from apps.serve.model import raw_json
from apps.serve.model.served import ServedModel
from apps.serve.request.schemas import ChatRequest, Function, NamedFunction, NamedTool

_OPEN, _CLOSE, _MISTRAL = "<tool_call>", "</tool_call>", "[TOOL_CALLS]"
_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')
"""that begins or ends a string of JSON: not `\\"`, but `\\\\"`"""
_MAX_CLOSINGS = 8
MAX_CALLS = 64


def offered_functions(body: ChatRequest, model: ServedModel) -> list[Function]:
    """The functions the model may call; empty when it must not call any."""
    if body.functions and body.function_call != "none":
        raise ApiError(400, "functions was replaced by tools; send tools.", param="functions")
    if isinstance(body.function_call, NamedFunction):
        raise ApiError(
            400, "function_call was replaced by tool_choice; send it.", param="function_call"
        )
    functions = [tool.function for tool in body.tools or ()]
    if body.tool_choice == "none":
        return []
    name = forced_name(body)
    if name is not None and name not in [function.name for function in functions]:
        raise ApiError(
            400, f"tool_choice names {name!r}, which is not among tools.", param="tool_choice"
        )
    if not functions:
        if body.tool_choice == "required":
            raise ApiError(400, "tool_choice is required, so tools is too.", param="tools")
        return []
    if not model.shows_tools:
        raise ApiError(
            400,
            f"The chat template of {model.config.name!r} does not show tools to the model; "
            "send no tools, or tool_choice none.",
            param="tools",
            code="unsupported_parameter",
        )
    return functions


def forced_name(body: ChatRequest) -> str | None:
    """The function that the client insists on."""
    return body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else None


def is_forced(body: ChatRequest) -> bool:
    """Whether the answer must be a tool call."""
    return body.tool_choice == "required" or forced_name(body) is not None


def call_grammar(functions: Sequence[Function], name: str | None) -> Grammar:
    """Output that is exactly one call, as JSON, of one of the functions."""
    allowed = [f for f in functions if name is None or f.name == name]
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function.name},
                "arguments": {"$ref": f"#/$defs/{i}"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for i, function in enumerate(allowed)
    ]
    definitions = {
        str(i): _moved(function.parameters or {"type": "object"}, f"#/$defs/{i}")
        for i, function in enumerate(allowed)
    }
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return Grammar(kind="json_schema", text=orjson.dumps({**schema, "$defs": definitions}).decode())


def _moved(schema: Any, place: str) -> Any:
    """A schema that stands at `place` of another one: its references start there."""
    if isinstance(schema, dict):
        return {
            key: place + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, place)
            for key, value in schema.items()
        }
    return [_moved(item, place) for item in schema] if isinstance(schema, list) else schema


def template_tools(functions: Sequence[Function]) -> list[dict[str, Any]]:
    """Functions as chat templates expect them."""
    return [
        {"type": "function", "function": function.model_dump(exclude_none=True)}
        for function in functions
    ]


class ToolParser:
    """Splits an answer that comes in pieces into plain text and tool calls."""

    def __init__(self, names: Sequence[str], max_calls: int = MAX_CALLS) -> None:
        self._names = set(names)
        self._max_calls = max_calls
        self._num_calls = 0
        self._buffer = ""
        self._gap: str | None = None
        """White space since the last call; None where there was none, or text came since."""
        self._is_bare: bool | None = None
        """Whether the answer may be a call without markers; None before its first character."""

    def push(self, text: str, final: bool) -> tuple[str, list[dict[str, Any]]]:
        """Text that is certainly not part of a call, and pieces of calls as a stream has them:
        the first piece of a call has its id and name. Here a piece is always a whole call."""
        self._buffer += text
        if self._is_bare is None and self._buffer.strip():
            self._is_bare = self._buffer.lstrip()[0] in "{["
        if self._is_bare:
            plain, calls = self._bare() if final else ("", [])
        else:
            plain, calls = self._marked(final)
        first = self._num_calls
        kept = calls[: self._max_calls - first]
        self._num_calls += len(kept)
        return plain, [{"index": first + i, **call} for i, call in enumerate(kept)]

    def _bare(self) -> tuple[str, list[dict[str, Any]]]:
        calls = self._calls(self._buffer.strip().removeprefix(_MISTRAL))
        return ("", calls) if calls else self._marked(final=True)

    def _marked(self, final: bool) -> tuple[str, list[dict[str, Any]]]:
        plain, calls = "", []
        while _OPEN in self._buffer:
            before, rest = self._buffer.split(_OPEN, 1)
            if (end := _end_of_call(rest)) < 0:
                if not final:
                    break
                end = rest.find(_CLOSE) if _CLOSE in rest else len(rest)
            inside, close = rest[:end], rest[end : end + len(_CLOSE)]
            self._buffer = rest[end + len(_CLOSE) :]
            plain += self._after_gap(before)
            if found := self._calls(inside):
                calls += found
                self._gap = ""
            else:
                plain += self._after_gap(f"{_OPEN}{inside}{close}")
        if _OPEN in self._buffer:
            cut = self._buffer.index(_OPEN)
        else:
            cut = len(self._buffer) - (0 if final else _overlap(self._buffer, _OPEN))
        plain += self._after_gap(self._buffer[:cut])
        self._buffer = self._buffer[cut:]
        return plain, calls

    def _after_gap(self, text: str) -> str:
        """The text, without white space between two calls or after the last one; what stands
        between a call and a text belongs to that, however the pieces are cut."""
        if self._gap is None:
            return text
        text = self._gap + text
        if not text.strip():
            self._gap = text
            return ""
        self._gap = None
        return text

    def _calls(self, text: str) -> list[dict[str, Any]]:
        """The calls in objects and arrays of objects; none when one of them is no call."""
        try:
            values = raw_json.several(text)
        except ValueError:
            return []
        calls: list[dict[str, Any] | None] = []
        for value, written in values:
            if isinstance(value, list):
                pairs = zip(value, raw_json.parts(written), strict=True)
                calls += [self._call(item, part) for item, (_, part) in pairs]
            else:
                calls.append(self._call(value, written))
        found = [call for call in calls if call is not None]
        return found[:MAX_CALLS] if len(found) == len(calls) else []

    def _call(self, value: Any, text: str) -> dict[str, Any] | None:
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in self._names:
            return None
        key = "arguments" if "arguments" in value else "parameters"
        arguments = value.get(key)
        if arguments is None:
            return new_call(name, "{}")
        if not isinstance(arguments, str):
            arguments = dict(raw_json.parts(text))[key]
        return new_call(name, arguments)


def new_call(name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _end_of_call(text: str) -> int:
    """Where it is closed, outside of its own strings; -1 where that has not come. One with many
    closings in its strings is closed by the first: each new piece of it would count them all."""
    first = end = text.find(_CLOSE)
    num_quotes = seen = 0
    for _ in range(_MAX_CLOSINGS):
        if end < 0:
            return -1
        num_quotes += len(_QUOTE.findall(text, seen, end))
        if num_quotes % 2 == 0:
            return end
        seen, end = end, text.find(_CLOSE, end + 1)
    return first


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that begins `marker`."""
    longest = min(len(text), len(marker) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)
