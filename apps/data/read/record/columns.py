"""One round in columns: a question, an answer, and what may stand beside them."""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import (
    Names,
    RawConversation,
    Turn,
    Unreadable,
    size_of,
)
from apps.data.read.record.lists import list_in_cell
from apps.data.read.record.messages import is_message, read_messages
from apps.data.read.record.metadata import describe
from apps.data.read.record.question import has_answer, question_of, text_of_value
from apps.data.read.record.rounds import read_rounds


def has_text(record: JsonObject, key: str) -> bool:
    return isinstance(record.get(key), str)


def read_columns(record: JsonObject, names: Names, *, asked: str, said: str) -> RawConversation:
    """One round, after those of a `history` column.

    `asked` and `said` are names of columns: the question and the answer. They may be lists of
    messages instead of texts. Raises Unreadable.
    """
    conversation = RawConversation()
    read = {asked, said}
    history = _list(record.get("history"))
    if history is not None:
        if all(map(is_message, history)):
            read_messages(history, names, conversation)
        else:
            read_rounds(history, names, conversation)
        read.add("history")
    question, answer = _conversational(record.get(asked)), _conversational(record.get(said))
    if question and answer:
        read_messages([*question, *answer], names, conversation)
    elif has_text(record, asked) and has_answer(record, said):
        told = question_of(record, asked)
        reply = text_of_value(record[said]) or ""
        conversation.turns.append(Turn("user", told.text, told.raw_bytes))
        conversation.turns.append(Turn("assistant", reply, size_of(reply)))
        read |= told.read
    else:
        raise Unreadable("bad-message", 2)
    describe(record, conversation, read)
    return conversation


def _conversational(value: object) -> list[JsonValue] | None:
    messages = _list(value)
    return messages if messages and all(map(is_message, messages)) else None


def _list(value: object) -> list[JsonValue] | None:
    """A list, also as the text of a cell; most texts here are questions, which is cheap to see."""
    return None if isinstance(value, str) and not value.startswith("[") else list_in_cell(value)
