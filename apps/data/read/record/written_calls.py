"""Calls that an answer has written out, as the templates of Hermes and Qwen show them.

{"from": "gpt", "value": "I look.\\n<tool_call>\\n{'name': 'f', 'arguments': {}}\\n</tool_call>"}

https://github.com/NousResearch/Hermes-Function-Calling has the form. At the end of an answer it
counts as a call where a tool speaks next, or where nothing else is said; elsewhere it is talked of.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from apps.data.read.record.layout import Turn
from apps.data.read.record.tool_calls import normalized

_CALL = r"<tool_call>\s*(\{(?:(?!</?tool_call>).)*\})\s*</tool_call>\s*"
_CALLS = re.compile(rf"(?:{_CALL})+\Z", re.DOTALL)
_ONE_CALL = re.compile(_CALL, re.DOTALL)


def with_written_calls(turns: Sequence[Turn]) -> list[Turn]:
    """The turns, with such texts as calls."""
    return [_read(turn, turns[i + 1 : i + 2]) for i, turn in enumerate(turns)]


def _read(turn: Turn, following: Sequence[Turn]) -> Turn:
    if turn.role != "assistant" or turn.tool_calls or "</tool_call>" not in turn.text:
        return turn
    written = _CALLS.search(turn.text)
    if written is None:
        return turn
    said = turn.text[: written.start()].strip()
    if said and not any(one.role == "tool" for one in following):
        return turn
    calls = normalized(f"[{','.join(_ONE_CALL.findall(written[0]))}]")
    return turn if calls is None else replace(turn, text=said, tool_calls=calls)
