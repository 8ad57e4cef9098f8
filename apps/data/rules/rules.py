"""The rules of the cleaner. Each is a small pure function of a conversation and the settings.

    rule(record, rules) -> None (nothing to do) | Drop(detail) | list[Turn] (the turns that stay)

`RULES` lists them in the order of application; a rule's name there is its setting's name and the
name under which the ledger counts. Scores are put on the record by `score` and never thresholded
there, so that a report can show what another threshold would do.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import re2
import zstandard

from apps.common.text import lexicon
from apps.data.config import Action, Rules
from apps.data.read.records import Record, Turn
from apps.data.rules import personal, phrases, prose


@dataclass(frozen=True, slots=True)
class Drop:
    detail: str


Verdict = Drop | list[Turn] | None
Rule = Callable[[Record, Rules], Verdict]

_BANNER_MAX_CHARS = 400
_REFUSAL_CHARS = 300
_ITEM = re.compile(r"^( {0,3})(\d{1,9})[.)] ", re.MULTILINE)
_DIGIT_RUN = re2.compile("|".join(f"{digit}{{9}}" for digit in range(10)))
_LINE_CHARS = 20
"""Shorter lines (brackets, list marks) repeat in good text."""
_REPETITION_MIN_CHARS = 600
_ZERO_WIDTH = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


def plugins(record: Record, rules: Rules) -> Verdict:
    return Drop("plugins") if rules.plugins == "drop" and record.has_plugins else None


def ends(record: Record, rules: Rules) -> Verdict:
    """Answers before the first user turn and user turns after the last answer go."""
    if rules.ends != "trim":
        return None
    turns = record.turns
    head = [turn for turn in turns[:1] if turn.role == "system"]
    start, stop = len(head), len(turns)
    while start < stop and turns[start].role != "user":
        start += 1
    while stop > start and turns[stop - 1].role != "assistant":
        stop -= 1
    if start == len(head) and stop == len(turns):
        return None
    return head + turns[start:stop]


def empty(record: Record, rules: Rules) -> Verdict:
    """The conversation ends before its first turn without anything printable in it.

    A system message without any says nothing about the turns, and only goes itself.
    """
    if rules.empty != "cut":
        return None
    turns = [turn for turn in record.turns if turn.role != "system" or _is_printable(turn.text)]
    for i, turn in enumerate(turns):
        if not _is_printable(turn.text):
            return ends(dataclasses.replace(record, turns=turns[:i]), _TRIM) or turns[:i]
    return turns if len(turns) < len(record.turns) else None


_TRIM = Rules(ends="trim")


def _is_printable(text: str) -> bool:
    head = text[:64].strip()
    if head and head[0].isprintable() and head[0] not in _ZERO_WIDTH_CHARS:
        return True
    rest = text.translate(_ZERO_WIDTH).strip()
    return any(char.isprintable() and not char.isspace() for char in rest)


_ZERO_WIDTH_CHARS = frozenset(map(chr, _ZERO_WIDTH))


def alternation(record: Record, rules: Rules) -> Verdict:
    """user, assistant, user, assistant... after an optional system turn."""
    turns = record.turns
    if rules.alternation == "keep" or not _repeats_role(turns):
        return None
    if rules.alternation == "drop" or any(turn.role == "system" for turn in turns[1:]):
        return Drop("two messages of one role in a row, or a late system message")
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            last = merged[-1]
            merged[-1] = Turn(
                turn.role,
                f"{last.text}\n\n{turn.text}",
                last.raw_bytes + turn.raw_bytes,
                last.num_raw + turn.num_raw,
            )
        else:
            merged.append(turn)
    return merged


def _repeats_role(turns: list[Turn]) -> bool:
    roles = [turn.role for turn in turns]
    start = 1 if roles[:1] == ["system"] else 0
    body = roles[start:]
    return "system" in body or any(a == b for a, b in itertools.pairwise(body))


def banner(record: Record, rules: Rules) -> Verdict:
    return _on_answers(
        record,
        rules.banner,
        lambda turn: (
            _found(phrases.BANNER, turn.text[:_BANNER_MAX_CHARS])
            if len(turn.text) < _BANNER_MAX_CHARS
            else ""
        ),
    )


def min_chars(record: Record, rules: Rules) -> Verdict:
    limit = rules.min_chars or 0
    total = sum(len(turn.text) for turn in record.turns)
    return Drop(f"{total} characters") if total < limit else None


def blocked_words(record: Record, rules: Rules) -> Verdict:
    if not rules.blocked_words:
        return None
    pattern = _words(rules.blocked_words)
    for turn in record.turns:
        if turn.role == "assistant" and pattern.search(turn.text) is not None:
            match = pattern.search(prose.of(turn.text))
            if match is not None:
                return Drop(match.group(0).lower())
    return None


@functools.cache
def _words(words: tuple[str, ...]) -> Any:
    joined = "|".join(re2.escape(word) for word in words)
    return re2.compile(rf"(?i)\b(?:{joined})\b")


def refusal(record: Record, rules: Rules) -> Verdict:
    return _on_answers(
        record, rules.refusal, lambda turn: _found(phrases.REFUSAL, turn.text[:_REFUSAL_CHARS])
    )


def moralizing(record: Record, rules: Rules) -> Verdict:
    return _on_answers(record, rules.moralizing, lambda turn: _found(phrases.MORALIZING, turn.text))


def identity(record: Record, rules: Rules) -> Verdict:
    return _on_answers(record, rules.identity, lambda turn: _found(phrases.IDENTITY, turn.text))


def cutoff(record: Record, rules: Rules) -> Verdict:
    return _on_answers(record, rules.cutoff, lambda turn: _found(phrases.CUTOFF, turn.text))


def restarted_list(record: Record, rules: Rules) -> Verdict:
    return _on_answers(record, rules.restarted_list, lambda turn: _restarts(turn.text))


def _restarts(text: str) -> str:
    """Two items numbered 1 in a row, with nothing but the first one's own lines between."""
    if "\n1. " not in text and "\n1) " not in text:
        return ""
    last: tuple[str, int] | None = None
    fence = ""
    for line in text.split("\n"):
        mark = line.lstrip()[:3]
        if fence or mark in ("```", "~~~"):
            fence = ("" if fence else mark) if mark == (fence or mark) else fence
            continue
        item = _ITEM.match(line)
        if item:
            now = (item[1], int(item[2]))
            if now == last and now[1] == 1:
                return line[:80]
            last = now
        elif line and not line.startswith(("   ", "\t")):
            last = None  # a paragraph between: the next list may start at 1 again
    return ""


def digit_run(record: Record, rules: Rules) -> Verdict:
    if rules.digit_run == "keep":
        return None
    if any(turn.role == "user" and _found(_DIGIT_RUN, turn.text) for turn in record.turns):
        return Drop("a digit nine times in a row")
    return _on_answers(record, rules.digit_run, lambda turn: _found(_DIGIT_RUN, turn.text))


def max_repetition(record: Record, rules: Rules) -> Verdict:
    score = record.scores.get("repetition", 0.0)
    limit = 1.0 if rules.max_repetition is None else rules.max_repetition
    return Drop(f"{score:.2f}") if score > limit else None


def language_keep(record: Record, rules: Rules) -> Verdict:
    if rules.language_keep and record.language and record.language not in rules.language_keep:
        return Drop(record.language)
    return None


def language_skip(record: Record, rules: Rules) -> Verdict:
    if rules.language_skip and record.language in rules.language_skip:
        return Drop(record.language or "")
    return None


def max_severity(record: Record, rules: Rules) -> Verdict:
    severity = int(record.scores.get("severity", 0))
    limit = lexicon.MAX_SEVERITY if rules.max_severity is None else rules.max_severity
    return Drop(f"severity {severity}") if severity > limit else None


def personal_data(record: Record, rules: Rules) -> Verdict:
    if rules.personal_data != "mask":
        return None
    turns = []
    for turn in record.turns:
        text, masked = personal.mask(turn.text)
        turns.append(dataclasses.replace(turn, text=text) if masked else turn)
    return turns if any(a is not b for a, b in zip(turns, record.turns, strict=True)) else None


Test = Callable[[Turn], str]


def _on_answers(record: Record, action: Action | None, test: Test) -> Verdict:
    """Drop the conversation at the first answer that fails the test, or take such rounds out."""
    if action is None or action == "keep":
        return None
    bad = [i for i, turn in enumerate(record.turns) if turn.role == "assistant" and test(turn)]
    if not bad:
        return None
    if action == "drop":
        return Drop(test(record.turns[bad[0]]))
    return _without_rounds(record.turns, bad)


def _without_rounds(turns: list[Turn], answers: Iterable[int]) -> list[Turn]:
    gone = set(answers)
    gone |= {i - 1 for i in gone if i and turns[i - 1].role == "user"}
    return [turn for i, turn in enumerate(turns) if i not in gone]


def _found(pattern: Any, text: str) -> str:
    match = pattern.search(text)
    return " ".join(match.group(0).split())[:120] if match is not None else ""


def score(record: Record, rules: Rules) -> None:
    """Language, repetition and severity, put on the record; thresholds are the rules' business."""
    every = rules.scores == "all"
    scores = {}
    proses: list[str] = []
    if every or rules.language_keep or rules.language_skip or rules.max_severity != 3:
        proses = [prose.of(turn.text) for turn in record.turns if turn.role != "system"]
    if every or rules.language_keep or rules.language_skip:
        record.language, share = prose.language(proses)
        scores["language"] = round(share, 4)
    if every or rules.max_repetition != 1:
        answers = [turn.text for turn in record.turns if turn.role == "assistant"]
        scores["repetition"] = round(max(map(repetition, answers), default=0.0), 4)
    if every or rules.max_severity != 3:
        scores["severity"] = float(lexicon.severity("\n".join(proses)))
    record.scores = scores


def repetition(text: str) -> float:
    """Share (0-1) of an answer that repeats: of its longer lines, or of its bytes when compressed.

    Prose compresses to .4-.6 of its bytes and code to .2-.4 at this level; a loop to under .1.
    """
    if len(text) < _REPETITION_MIN_CHARS:
        return 0.0
    lines = [line for line in text.split("\n") if len(line) >= _LINE_CHARS]
    total = sum(map(len, lines))
    repeated = 1 - sum(map(len, set(lines))) / total if total > len(text) / 2 else 0.0
    raw = text[: 1 << 16].encode()
    compressed = 1 - len(_compressor().compress(raw)) / len(raw)
    return max(repeated, compressed)


@functools.cache
def _compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=1)


RULES: tuple[tuple[str, Rule], ...] = (
    ("plugins", plugins),
    ("empty", empty),
    ("ends", ends),
    ("alternation", alternation),
    ("banner", banner),
    ("min_chars", min_chars),
    ("blocked_words", blocked_words),
    ("refusal", refusal),
    ("moralizing", moralizing),
    ("identity", identity),
    ("cutoff", cutoff),
    ("restarted_list", restarted_list),
    ("digit_run", digit_run),
    ("language_keep", language_keep),
    ("language_skip", language_skip),
    ("max_severity", max_severity),
    ("max_repetition", max_repetition),
    ("personal_data", personal_data),
)
