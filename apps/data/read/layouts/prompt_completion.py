"""A question and an answer in two columns, under the names that data sets give them."""

from apps.common.json_value import JsonObject
from apps.data.read.record.columns import has_text, read_columns
from apps.data.read.record.layout import (
    Layout,
    Names,
    RawConversation,
    Unreadable,
    list_of,
)
from apps.data.read.record.question import has_answer, without_empty

_WHAT = ("text", "message", "content", "body")
_NAMES = frozenset((("user", "bot"), ("user", "reply")))
"""Columns that name who spoke beside what is said: {"user": "U1", "text": "Hi", "bot": "B1"}."""
ASKED = ("prompt", "query", "question", "problem", "input", "human", "user")
SAID = (
    *("completion", "response", "solution", "answer", "output", "reply", "assistant", "gpt"),
    "bot",
)
"""A solution ends with the answer that stands alone beside it."""


def _columns(record: JsonObject) -> tuple[str, str] | None:
    says_what = any(has_text(record, key) for key in _WHAT)
    for answers in (has_text, has_answer):
        for asked in ASKED:
            for said in SAID:
                if says_what and (asked, said) in _NAMES:
                    continue
                if has_text(record, asked) and answers(record, said):
                    return asked, said
    is_list = list_of(record.get("prompt")) and list_of(record.get("completion"))
    return ("prompt", "completion") if is_list else None


def _full_columns(record: JsonObject) -> tuple[str, str] | None:
    """Those that say something, if there are any."""
    return _columns(without_empty(record)) or _columns(record)


def _recognises(record: JsonObject) -> bool:
    return _columns(record) is not None


def _read(record: JsonObject, names: Names) -> RawConversation:
    found = _full_columns(record)
    if found is None:
        raise Unreadable("no-messages")
    return read_columns(record, names, asked=found[0], said=found[1])


LAYOUT = Layout(
    name="prompt-completion",
    what="two columns: prompt and completion, query and response, question and answer",
    example='{"prompt": "Which river?", "completion": "The Danube."}',
    recognises=_recognises,
    read=_read,
)
