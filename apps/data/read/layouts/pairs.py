"""Lists of question and answer, as texts or under names such as human and assistant; or lists of a
speaker's name and what was said."""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import (
    Layout,
    Names,
    RawConversation,
    Unreadable,
)
from apps.data.read.record.lists import KEYS, list_in_cell
from apps.data.read.record.metadata import describe
from apps.data.read.record.rounds import is_pair, read_rounds

_LISTS = (*KEYS, "rounds", "pairs")


def _recognises(record: JsonObject) -> bool:
    return _pairs(record) is not None


def _pairs(record: JsonObject) -> tuple[str, list[JsonValue]] | None:
    for key in _LISTS:
        value = list_in_cell(record.get(key))
        if value and is_pair(value[0]):
            return key, value
    return None


def _read(record: JsonObject, names: Names) -> RawConversation:
    found = _pairs(record)
    if found is None:
        raise Unreadable("no-messages")
    conversation = RawConversation()
    read_rounds(found[1], names, conversation)
    describe(record, conversation, (found[0],))
    return conversation


LAYOUT = Layout(
    name="pairs",
    what="lists of question and answer, as texts or under names such as human and assistant; or of "
    "a speaker's name and a text",
    example='{"id": "a", "conversation": [["Hi", "Hello"], ["How are you?", "Well."]]}',
    recognises=_recognises,
    read=_read,
)
