"""Pairs of a question and its answer, as texts or under names such as human and assistant.

XTuner's pairs say more: {"system": "Be brief.", "input": "Hi", "output": "Yo", "output_with_loss":
false}. https://xtuner.readthedocs.io/en/latest/training/multi_turn_conversation.html has them.
"""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.flags import is_learned, weights_read
from apps.data.read.record.layout import (
    Names,
    RawConversation,
    Turn,
    Unreadable,
    fields_beside,
    list_of,
    object_of,
    size_of,
)
from apps.data.read.record.question import has_answer, question_of, text_of_value
from apps.data.read.record.roles import role_of

_ASKED = ("human", "user", "question", "prompt", "instruction", "query", "input")
_SAID = ("assistant", "bot", "gpt", "answer", "response", "output", "completion")


def is_pair(value: object) -> bool:
    """Whether a value is a question and its answer."""
    texts = list_of(value)
    if texts is not None:
        return len(texts) == 2 and all(isinstance(text, str) for text in texts)
    fields = object_of(value)
    return fields is not None and _columns(fields) is not None


def _columns(fields: JsonObject) -> tuple[str, str] | None:
    asked = next((key for key in _ASKED if isinstance(fields.get(key), str)), None)
    said = next((key for key in _SAID if has_answer(fields, key)), None)
    return None if asked is None or said is None else (asked, said)


def read_rounds(pairs: list[JsonValue], names: Names, conversation: RawConversation) -> None:
    """Add the turns of a list. Raises Unreadable."""
    said = _said_by(pairs, dict(names.roles))
    if said is not None:
        conversation.turns += said
        return
    for value in pairs:
        if not is_pair(value):
            raise Unreadable("bad-pair", 2 * len(pairs))
        fields = object_of(value)
        if fields is not None:
            _read_fields(fields, conversation)
            continue
        for role, text in zip(("user", "assistant"), list_of(value) or (), strict=False):
            assert isinstance(text, str)  # a pair's are
            conversation.turns.append(Turn(role, text, size_of(text)))


def _said_by(pairs: list[JsonValue], roles: dict[str, str]) -> list[Turn] | None:
    """The turns of pairs that are a speaker's name and a text, as FastChat and LangChain have them;
    None where not every pair begins with a name, or one role alone speaks.

    [["USER", "Hi"], ["ASSISTANT", "Yo"]]  ->  user "Hi", assistant "Yo"
    """
    turns: list[Turn] = []
    for value in pairs:
        name, text = list_of(value) or (None, None) if is_pair(value) else (None, None)
        role = role_of(name, roles)
        if role is None or not isinstance(text, str):
            return None
        turns.append(Turn(role, text, size_of(text)))
    speakers = {turn.role for turn in turns}
    return turns if "user" in speakers and len(speakers) > 1 else None


def _read_fields(fields: JsonObject, conversation: RawConversation) -> None:
    columns = _columns(fields)
    assert columns is not None  # a pair has both
    question, answer = question_of(fields, columns[0]), text_of_value(fields[columns[1]]) or ""
    _put_system(fields, conversation)
    conversation.turns += [
        Turn("user", question.text, question.raw_bytes),
        Turn("assistant", answer, size_of(answer), is_learned=is_learned(fields)),
    ]
    read = {*question.read, columns[1], *weights_read(fields)}
    read |= {"system"} if isinstance(fields.get("system"), str) else set()
    conversation.ignored += [f"pairs[].{key}" for key in fields_beside(fields, read)]


def _put_system(fields: JsonObject, conversation: RawConversation) -> None:
    """A pair's system text is a turn before it, unless it is what the last one was."""
    text = fields.get("system")
    if not isinstance(text, str) or not text:
        return
    last = next((turn for turn in reversed(conversation.turns) if turn.role == "system"), None)
    if last is None or last.text != text:
        conversation.turns.append(Turn("system", text, size_of(text)))
