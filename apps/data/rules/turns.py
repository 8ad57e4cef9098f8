"""Rules of a conversation's shape: whose turn it is, and whether there is one at all."""

import dataclasses
import functools
import itertools

from apps.common.text.words import num_words
from apps.data.read.record.layout import Turn
from apps.data.read.records import Record
from apps.data.rules.profiles import Rules
from apps.data.rules.verdict import Drop, Verdict

_ZERO_WIDTH = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
_ZERO_WIDTH_CHARS = frozenset(map(chr, _ZERO_WIDTH))
_WORD_CHARS = 5
"""Of an English word with its blank, about."""


def plugins(record: Record, rules: Rules) -> Verdict:
    return Drop("plugins") if rules.plugins == "drop" and record.has_plugins else None


def empty(record: Record, rules: Rules) -> Verdict:
    """The conversation ends before its first turn without anything printable in it.

    A system message without any says nothing about the turns, and only goes itself.
    """
    if rules.empty != "cut":
        return None
    turns = [turn for turn in record.turns if turn.role != "system" or _is_printable(turn.text)]
    for i, turn in enumerate(turns):
        if turn.role != "tool" and turn.tool_calls is None and not _is_printable(turn.text):
            trimmed = ends(dataclasses.replace(record, turns=turns[:i]), _TRIM)
            return turns[:i] if trimmed is None else trimmed
    return turns if len(turns) < len(record.turns) else None


_TRIM = Rules(ends="trim")


def _is_printable(text: str) -> bool:
    head = text[:64].strip()
    if head and head[0].isprintable() and head[0] not in _ZERO_WIDTH_CHARS:
        return True
    rest = text.translate(_ZERO_WIDTH).strip()
    return any(char.isprintable() and not char.isspace() for char in rest)


def ends(record: Record, rules: Rules) -> Verdict:
    """Answers before the first user turn and user turns after the last answer go.

    Several system turns before them, as of a system and a developer, are joined to one.
    """
    if rules.ends != "trim":
        return None
    turns = _with_one_head(record.turns)
    head = [turn for turn in turns[:1] if turn.role == "system"]
    start, stop = len(head), len(turns)
    while start < stop and turns[start].role != "user":
        start += 1
    while stop > start and turns[stop - 1].role != "assistant":
        stop -= 1
    if start == len(head) and stop == len(turns):
        return turns if len(turns) < len(record.turns) else None
    return head + turns[start:stop]


def _with_one_head(turns: list[Turn]) -> list[Turn]:
    head = list(itertools.takewhile(lambda turn: turn.role == "system", turns))
    if len(head) < 2:
        return turns
    return [functools.reduce(Turn.joined_with, head), *turns[len(head) :]]


def alternation(record: Record, rules: Rules) -> Verdict:
    """user, assistant, user, assistant... after an optional system turn."""
    turns = record.turns if rules.alternation == "keep" else _with_one_head(record.turns)
    if rules.alternation == "keep" or not _repeats_role(turns):
        return turns if len(turns) < len(record.turns) else None
    if rules.alternation == "drop" or any(turn.role == "system" for turn in turns[1:]):
        return Drop("two messages of one role in a row, or a late system message")
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role != "tool":
            merged[-1] = merged[-1].joined_with(turn)
        else:
            merged.append(turn)
    return merged


def _repeats_role(turns: list[Turn]) -> bool:
    roles = [turn.role for turn in turns]
    start = 1 if roles[:1] == ["system"] else 0
    body = roles[start:]
    return "system" in body or any(a == b != "tool" for a, b in itertools.pairwise(body))


def min_chars(record: Record, rules: Rules) -> Verdict:
    """Too little to learn from; a word of a script without blanks counts as five characters."""
    limit = rules.min_chars or 0
    total = sum(len(turn.text) for turn in record.turns)
    if total >= limit:
        return None
    total = sum(_length(turn.text) for turn in record.turns)
    return Drop(f"{total} characters") if total < limit else None


def _length(text: str) -> int:
    return len(text) if text.isascii() else max(len(text), _WORD_CHARS * num_words(text))
