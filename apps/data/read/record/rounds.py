"""Pairs of a question and its answer, as texts or under names such as human and assistant."""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import Turn, Unreadable, list_of, object_of, size_of

_ASKED = ("human", "user", "question", "prompt", "instruction", "query", "input")
_SAID = ("assistant", "bot", "gpt", "answer", "response", "output", "completion")


def pair_of(value: object) -> tuple[str, str] | None:
    """Question and answer, or None."""
    texts = list_of(value)
    if texts is not None:
        spoken = [text for text in texts if isinstance(text, str)]
        return (spoken[0], spoken[1]) if len(spoken) == len(texts) == 2 else None
    fields = object_of(value)
    if fields is None:
        return None
    asked, said = _first_text(fields, _ASKED), _first_text(fields, _SAID)
    return None if asked is None or said is None else (asked, said)


def _first_text(fields: JsonObject, names: tuple[str, ...]) -> str | None:
    return next((text for name in names if isinstance(text := fields.get(name), str)), None)


def rounds(pairs: list[JsonValue]) -> list[Turn]:
    """Raises Unreadable."""
    turns: list[Turn] = []
    for value in pairs:
        pair = pair_of(value)
        if pair is None:
            raise Unreadable("bad-pair", 2 * len(pairs))
        turns.append(Turn("user", pair[0], size_of(pair[0])))
        turns.append(Turn("assistant", pair[1], size_of(pair[1])))
    return turns
