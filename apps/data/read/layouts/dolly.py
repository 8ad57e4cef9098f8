"""Dolly: instruction, context and response."""

from apps.common.json_value import JsonObject
from apps.data.read.record.columns import has_text, read_columns
from apps.data.read.record.layout import Layout, Names, RawConversation
from apps.data.read.record.question import has_answer


def _recognises(record: JsonObject) -> bool:
    return has_text(record, "instruction") and has_answer(record, "response")


def _read(record: JsonObject, names: Names) -> RawConversation:
    return read_columns(record, names, asked="instruction", said="response")


LAYOUT = Layout(
    name="dolly",
    what="Dolly: instruction, context, response",
    example='{"instruction": "Which river?", "context": "Vienna.", "response": "The Danube."}',
    recognises=_recognises,
    read=_read,
)
