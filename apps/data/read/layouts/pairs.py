"""Lists of question and answer, as texts or under names such as human and assistant."""

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import (
    Layout,
    Names,
    RawConversation,
    Unreadable,
    list_of,
)
from apps.data.read.record.lists import KEYS
from apps.data.read.record.metadata import describe
from apps.data.read.record.rounds import pair_of, rounds

_LISTS = (*KEYS, "rounds", "pairs")


def _recognises(record: JsonObject) -> bool:
    return _pairs(record) is not None


def _pairs(record: JsonObject) -> tuple[str, list[JsonValue]] | None:
    for key in _LISTS:
        value = list_of(record.get(key))
        if value and pair_of(value[0]) is not None:
            return key, value
    return None


def _read(record: JsonObject, names: Names) -> RawConversation:
    found = _pairs(record)
    if found is None:
        raise Unreadable("no-messages")
    conversation = RawConversation(turns=rounds(found[1]))
    describe(record, conversation, (found[0],))
    return conversation


LAYOUT = Layout(
    name="pairs",
    what="lists of question and answer, as texts or under names such as human and assistant",
    example='{"id": "a", "conversation": [["Hi", "Hello"], ["How are you?", "Well."]]}',
    recognises=_recognises,
    read=_read,
)
