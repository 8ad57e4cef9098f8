"""Arguments of an earlier tool call, as chat templates want them.

OpenAI's clients send them as JSON text. Templates are written for an object, by the convention of
transformers, and write it with `tojson`, which would quote a text a second time; some older ones
put the text together with `+`.
"""

from collections.abc import Mapping
from typing import Any

from apps.serve.model import raw_json


class Arguments(dict[str, Any]):
    """An object that is its JSON text wherever text is wanted."""

    def __init__(self, values: Mapping[str, Any], text: str) -> None:
        super().__init__(values)
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __add__(self, other: str) -> str:
        return self._text + other

    def __radd__(self, other: str) -> str:
        return other + self._text


def with_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message, its calls' arguments as objects where they are some."""
    calls = [
        {**call, "function": {**call["function"], "arguments": _parsed(call)}}
        for call in message.get("tool_calls", ())
    ]
    return {**message, "tool_calls": calls} if calls else dict(message)


def _parsed(call: Mapping[str, Any]) -> Arguments | str:
    text = call["function"]["arguments"]
    try:
        values = raw_json.parse(text or "{}")
    except ValueError:
        return text
    return Arguments(values, text) if isinstance(values, dict) else text
