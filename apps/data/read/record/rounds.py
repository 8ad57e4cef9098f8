"""Pairs of a question and its answer, as texts or under names such as human and assistant."""

from typing import Any

from apps.data.read.record.layout import Turn, Unreadable, list_of, object_of, size_of

_ASKED = ("human", "user", "question", "prompt", "instruction", "query", "input")
_SAID = ("assistant", "bot", "gpt", "answer", "response", "output", "completion")


def pair_of(value: object) -> tuple[str, str] | None:
    """Question and answer, or None."""
    texts = list_of(value)
    if texts is not None:
        is_pair = len(texts) == 2 and all(isinstance(text, str) for text in texts)
        return (texts[0], texts[1]) if is_pair else None
    fields = object_of(value)
    if fields is None:
        return None
    asked = next((fields[key] for key in _ASKED if isinstance(fields.get(key), str)), None)
    said = next((fields[key] for key in _SAID if isinstance(fields.get(key), str)), None)
    return None if asked is None or said is None else (asked, said)


def rounds(pairs: list[Any]) -> list[Turn]:
    """Raises Unreadable."""
    turns: list[Turn] = []
    for value in pairs:
        pair = pair_of(value)
        if pair is None:
            raise Unreadable("bad-pair", 2 * len(pairs))
        turns.append(Turn("user", pair[0], size_of(pair[0])))
        turns.append(Turn("assistant", pair[1], size_of(pair[1])))
    return turns
