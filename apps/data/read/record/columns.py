"""One round in columns: a question, an answer, and what may stand beside them."""

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import (
    Names,
    RawConversation,
    Turn,
    Unreadable,
    list_of,
    size_of,
)
from apps.data.read.record.messages import is_message, read_messages
from apps.data.read.record.metadata import describe
from apps.data.read.record.rounds import rounds


def has_text(record: JsonObject, key: str) -> bool:
    return isinstance(record.get(key), str)


def read_columns(
    record: JsonObject, names: Names, *, asked: str, context: str | None, said: str
) -> RawConversation:
    """One round, after those of a `history` column.

    `asked`, `context` and `said` are names of columns: the question, a text to put below it, and
    the answer. Question and answer may be lists of messages instead of texts. Raises Unreadable.
    """
    conversation = RawConversation()
    history = list_of(record.get("history")) or []
    conversation.turns += rounds(history)
    question, answer = record.get(asked), record.get(said)
    if isinstance(question, str) and isinstance(answer, str):
        beside = record.get(context) if context else None
        text = f"{question}\n\n{beside}" if isinstance(beside, str) and beside else question
        size = size_of(question) + (size_of(beside) if isinstance(beside, str) else 0)
        conversation.turns.append(Turn("user", text, size))
        conversation.turns.append(Turn("assistant", answer, size_of(answer)))
    elif _is_conversational(question) and _is_conversational(answer):
        read_messages([*(list_of(question) or ()), *(list_of(answer) or ())], names, conversation)
    else:
        raise Unreadable("bad-message", 2)
    describe(record, conversation, tuple(filter(None, (asked, context, said, "history"))))
    return conversation


def _is_conversational(value: object) -> bool:
    messages = list_of(value)
    return bool(messages) and all(map(is_message, messages or ()))
