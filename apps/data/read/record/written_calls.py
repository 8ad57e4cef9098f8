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

_CALL = re.compile(r"<tool_call>\s*(\{(?:(?!</?tool_call>).)*\})\s*</tool_call>\s*", re.DOTALL)


def with_written_calls(turns: Sequence[Turn]) -> list[Turn]:
    """The turns, with such texts as calls."""
    return [_read(turn, turns[i + 1 : i + 2]) for i, turn in enumerate(turns)]


def _read(turn: Turn, following: Sequence[Turn]) -> Turn:
    if turn.role != "assistant" or turn.tool_calls or "</tool_call>" not in turn.text:
        return turn
    written = _calls_at_the_end(turn.text)
    if not written:
        return turn
    said = turn.text[: written[0].start()].strip()
    if said and not any(one.role == "tool" for one in following):
        return turn
    calls = normalized(f"[{','.join(call[1] for call in written)}]")
    return turn if calls is None else replace(turn, text=said, tool_calls=calls)


def _calls_at_the_end(text: str) -> list[re.Match[str]]:
    """Those with nothing but blanks between them and behind them."""
    found: list[re.Match[str]] = []
    for call in _CALL.finditer(text):
        if found and found[-1].end() != call.start():
            found.clear()
        found.append(call)
    return found if found and found[-1].end() == len(text) else []
