"""Alpaca: instruction, input and output; with history and system where LLaMA-Factory adds them.

Dolphin and its kin (https://huggingface.co/datasets/cognitivecomputations/dolphin) have the names
of these columns, but the instruction is what the system says, and the input what the user does.
"""

import re
from collections import Counter
from collections.abc import Sequence

from apps.common.json_value import JsonObject
from apps.data.read.record.columns import has_text, read_columns
from apps.data.read.record.layout import Layout, Names, RawConversation
from apps.data.read.record.question import has_answer

_MIN_RECORDS = 10
_TO_A_MODEL = re.compile(
    r"\s*(?:you(?:'re| are) (?!given |provided |presented |shown |asked )|act as |du bist "
    r"|sie sind |tu es |vous êtes |eres |você é |sei |ты |вы |你是|您是|あなたは|당신은)",
    re.IGNORECASE,
)
"""Not "You are given a sentence. Translate it.", which is a task."""


def _recognises(record: JsonObject) -> bool:
    return has_text(record, "instruction") and has_answer(record, "output")


def _read(record: JsonObject, names: Names) -> RawConversation:
    return read_columns(record, names, asked="instruction", said="output")


def are_told_to_a_model(records: Sequence[JsonObject]) -> bool:
    """Whether the instructions of a file's first records are what the system says: a few that come
    again and again, most of them about who answers, each before an input."""
    told = Counter(str(record["instruction"]) for record in records if _has_input(record))
    num_told = told.total()
    num_to_a_model = sum(n for text, n in told.items() if _TO_A_MODEL.match(text))
    are_all_told = num_told == len(records) >= _MIN_RECORDS
    return are_all_told and 2 * len(told) <= num_told < 2 * num_to_a_model


def with_system(record: JsonObject) -> JsonObject:
    """Such a record with our names: {"instruction": S, "input": Q}  ->  {"system": S, ...: Q}."""
    if not _has_input(record) or "system" in record:
        return record
    beside = {key: value for key, value in record.items() if key != "input"}
    return {**beside, "system": record["instruction"], "instruction": record["input"]}


def _has_input(record: JsonObject) -> bool:
    given = record.get("input")
    return _recognises(record) and isinstance(given, str) and bool(given.strip())


LAYOUT = Layout(
    name="alpaca",
    what="Alpaca: instruction, input, output, with optional history and system",
    example='{"instruction": "Translate.", "input": "Hello", "output": "Hallo", "history": []}',
    recognises=_recognises,
    read=_read,
)
