"""Alpaca: instruction, input and output; with history and system where LLaMA-Factory adds them."""

from apps.common.json_value import JsonObject
from apps.data.read.record.columns import has_text, read_columns
from apps.data.read.record.layout import Layout, Names, RawConversation
from apps.data.read.record.question import has_answer


def _recognises(record: JsonObject) -> bool:
    return has_text(record, "instruction") and has_answer(record, "output")


def _read(record: JsonObject, names: Names) -> RawConversation:
    return read_columns(record, names, asked="instruction", said="output")


LAYOUT = Layout(
    name="alpaca",
    what="Alpaca: instruction, input, output, with optional history and system",
    example='{"instruction": "Translate.", "input": "Hello", "output": "Hallo", "history": []}',
    recognises=_recognises,
    read=_read,
)
