"""UltraChat: texts in turn, the user first; its 200k selection has messages and a prompt beside."""

from apps.common.json_value import JsonObject
from apps.data.read.layouts import alpaca, dolly, prompt_completion
from apps.data.read.record.layout import (
    Layout,
    Names,
    RawConversation,
    Turn,
    Unreadable,
    size_of,
)
from apps.data.read.record.lists import holds_messages, list_in_cell, read_list
from apps.data.read.record.metadata import describe

_ROLES = ("user", "assistant")
_LISTS = ("data", "conversations", "messages", "conversation", "dialogue", "dialog", "chat")
_QUESTIONS = ("question_id", "category")
"""Beside them `turns` are questions that stand one after another, as MT-bench has them."""
_COLUMNS = (alpaca.LAYOUT, dolly.LAYOUT, prompt_completion.LAYOUT)
"""What they recognise says more of the record than a list of texts."""


def _recognises(record: JsonObject) -> bool:
    return _is_selection(record) or (_texts(record) is not None and not _has_columns(record))


def _has_columns(record: JsonObject) -> bool:
    return any(layout.recognises(record) for layout in _COLUMNS)


def _is_selection(record: JsonObject) -> bool:
    return "prompt_id" in record and "messages" in record and holds_messages(record)


def _texts(record: JsonObject) -> tuple[str, list[str]] | None:
    has_questions = any(key in record for key in _QUESTIONS)
    for key in _LISTS if has_questions else (*_LISTS, "turns"):
        value = list_in_cell(record.get(key))
        if value and isinstance(value[0], str):
            texts = [text for text in value if isinstance(text, str)]
            if len(texts) == len(value):
                return key, texts
    return None


def _read(record: JsonObject, names: Names) -> RawConversation:
    texts = _texts(record)
    if texts is None:
        conversation = read_list(record, names)
        first = conversation.turns[0].text if conversation.turns else ""
        if record.get("prompt") == first:  # the first message, said twice
            conversation.ignored = [key for key in conversation.ignored if key != "prompt"]
        return conversation
    if not texts[1]:
        raise Unreadable("no-messages")
    turns = [Turn(_ROLES[i % 2], text, size_of(text)) for i, text in enumerate(texts[1])]
    conversation = RawConversation(turns=turns)
    describe(record, conversation, (texts[0],))
    return conversation


LAYOUT = Layout(
    name="ultrachat",
    what="UltraChat: a list of texts in turn; UltraChat-200k: messages with prompt_id",
    example='{"id": "0", "data": ["Hi", "Hello", "How are you?", "Well."]}',
    recognises=_recognises,
    read=_read,
)
