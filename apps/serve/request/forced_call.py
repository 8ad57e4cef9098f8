"""The answer when the client insists on a tool: one call, whose arguments are sent as they come."""

import re
import string
from collections.abc import Sequence
from typing import Any

from apps.serve.model import raw_json
from apps.serve.request.tools import ToolParser, new_call

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(?=\S)')
_CLOSING = string.whitespace + "}"
"""may end the call itself, and not its arguments"""


class ForcedCall:
    """Reads what `tools.call_grammar` allows; see ToolParser.push."""

    def __init__(self, names: Sequence[str]) -> None:
        self._any_form = ToolParser(names, max_calls=1)
        self._names = set(names)
        self._text = ""
        self._sent: int | None = None
        """how much of the text; None before the name"""

    def push(self, text: str, final: bool) -> tuple[str, list[dict[str, Any]]]:
        self._text += text
        pieces: list[dict[str, Any]] = []
        if self._sent is None:
            head = _HEAD.match(self._text)
            if head is None or head[1] not in self._names:
                return self._any_form.push(self._text, final) if final else ("", [])
            self._sent = head.end()
            pieces.append({"index": 0, **new_call(head[1], "")})
        end = self._end(final)
        if end > self._sent:
            pieces.append({"index": 0, "function": {"arguments": self._text[self._sent : end]}})
            self._sent = end
        return "", pieces

    def _end(self, final: bool) -> int:
        """Of the arguments, as far as it is certain."""
        if not final:
            return len(self._text.rstrip(_CLOSING))
        try:
            raw_json.parse(self._text)
        except ValueError:  # cut for its length
            return len(self._text)
        return len(self._text[: self._text.rindex("}")].rstrip())
