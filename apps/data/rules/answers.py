"""Rules of what an answer says: a provider's words, lists and digits gone wrong.

Each says how it did on 460 answers that people and judges have read: those of five chatbots to the
Vicuna blog's questions, and GPT-4's to MT-bench's. Shared chats refuse and introduce themselves far
more often; look at a dump's own drops with `python -m apps.data view DIR --rule NAME`.
"""

# re2 is partly unknown:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import functools
from collections.abc import Callable, Iterable
from typing import Any

import re2

from apps.data.read.record.layout import Turn
from apps.data.read.records import Record
from apps.data.rules import numbered_lists, phrases, prose
from apps.data.rules.profiles import Action, Rules
from apps.data.rules.verdict import Drop, Verdict

_BANNER_MAX_CHARS = 400
_DIGIT_RUN = re2.compile("|".join(f"{digit}{{9}}" for digit in range(10)))


def banner(record: Record, rules: Rules) -> Verdict:
    """An answer that is nothing but the provider's error text. Of the 460 answers it takes none."""
    return _on_answers(
        record,
        rules.banner,
        lambda turn: (
            _match(phrases.BANNER, turn.text[:_BANNER_MAX_CHARS])
            if len(turn.text) < _BANNER_MAX_CHARS
            else ""
        ),
    )


def blocked_words(record: Record, rules: Rules) -> Verdict:
    """A word of the list in an answer's prose. Of the 460 answers it takes none."""
    if not rules.blocked_words:
        return None
    pattern = _words(rules.blocked_words)
    if pattern.search(_all_said(record, "assistant")) is None:
        return None
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
    """An answer that opens by refusing. Of the 460 answers it takes 2, and both refuse."""
    more = rules.phrases or ()
    return _on_answers(
        record, rules.refusal, lambda turn: _shown(phrases.refusal_in(turn.text, more))
    )


def moralizing(record: Record, rules: Rules) -> Verdict:
    """An answer that lectures. Of the 460 answers it takes 2; one only says that it is a model."""
    return _on_phrase(record, rules.moralizing, phrases.MORALIZING)


def identity(record: Record, rules: Rules) -> Verdict:
    """An answer that says who made it. Of the 460 answers it takes 7; 5 are right, and 2 are
    stories told by a robot, who was "created by a group of scientists"."""
    return _on_phrases_of(record, rules.identity, "identity", rules)


def cutoff(record: Record, rules: Rules) -> Verdict:
    """An answer that says when its knowledge ends. Of the 460 answers it takes none."""
    return _on_phrases_of(record, rules.cutoff, "cutoff", rules)


def restarted_list(record: Record, rules: Rules) -> Verdict:
    """Two items numbered 1 in a row: a list that was cut, or that code between them restarted.

    Of the 460 answers it takes none.
    """
    if rules.restarted_list != "repair":
        return _on_answers(
            record, rules.restarted_list, lambda turn: numbered_lists.restart(turn.text)
        )
    turns = [
        turn.with_text(numbered_lists.renumbered(turn.text)) if turn.role == "assistant" else turn
        for turn in record.turns
    ]
    return turns if any(a is not b for a, b in zip(turns, record.turns, strict=True)) else None


def digit_run(record: Record, rules: Rules) -> Verdict:
    """A digit nine times in a row. Of the 460 answers it takes none."""
    if rules.digit_run == "keep":
        return None
    if _DIGIT_RUN.search(_all_said(record, "user")) is not None:
        return Drop("a digit nine times in a row")
    return _on_phrase(record, rules.digit_run, _DIGIT_RUN)


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


def _on_phrase(record: Record, action: Action | None, pattern: Any) -> Verdict:
    """One search over all the answers first: most conversations have no such phrase."""
    if action is None or action == "keep" or pattern.search(_all_said(record, "assistant")) is None:
        return None
    return _on_answers(record, action, lambda turn: _match(pattern, turn.text))


def _on_phrases_of(
    record: Record, action: Action | None, kind: phrases.Kind, rules: Rules
) -> Verdict:
    """A user's expression may begin with `^`, which each answer has of its own."""
    pattern = phrases.of(kind, rules.phrases or ())
    if rules.phrases:
        return _on_answers(record, action, lambda turn: _match(pattern, turn.text))
    return _on_phrase(record, action, pattern)


def _all_said(record: Record, role: str) -> str:
    return "\n".join(turn.text for turn in record.turns if turn.role == role)


def _without_rounds(turns: list[Turn], answers: Iterable[int]) -> list[Turn]:
    gone = set(answers)
    gone |= {i - 1 for i in gone if i and turns[i - 1].role == "user"}
    return [turn for i, turn in enumerate(turns) if i not in gone]


def _match(pattern: Any, text: str) -> str:
    match = pattern.search(text)
    return _shown(match.group(0)) if match is not None else ""


def _shown(said: str) -> str:
    return " ".join(said.split())[:120]
