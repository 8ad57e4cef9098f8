"""Lists of texts are a conversation only under names for one, and where no column is."""

from typing import Any

import orjson
import pytest

from apps.data.read.layouts.known import recognised
from apps.data.read.reader import Reading, read_record
from apps.data.read.record.layout import Unreadable

TEXTS = ["c", "a", "b"]
ROUND = [("user", "Sort these."), ("assistant", "a, b, c")]


@pytest.mark.parametrize(
    "key",
    ["data", "conversations", "messages", "conversation", "dialogue", "dialog", "chat", "turns"],
)
@pytest.mark.parametrize("is_cell", [False, True])
def test_texts_under_a_name_for_a_conversation_are_its_turns(key: str, is_cell: bool) -> None:
    given = orjson.dumps(TEXTS).decode() if is_cell else TEXTS
    conversation, layout = read_record({"id": "a", key: given}, Reading())
    assert layout.name == "ultrachat"
    assert [(turn.role, turn.text) for turn in conversation.turns] == [
        ("user", "c"),
        ("assistant", "a"),
        ("user", "b"),
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"question_id": 81, "category": "writing", "turns": ["Write it.", "Rewrite it."]},
        {"question_id": 81, "turns": ["Write it.", "Rewrite it."], "reference": ["a", "b"]},
        {"category": "math", "turns": ["Write it."]},
        {"id": "a", "items": TEXTS},
        {"id": "a", "tags": TEXTS},
    ],
)
def test_other_lists_of_texts_are_none(record: dict[str, Any]) -> None:
    assert recognised(record) is None
    with pytest.raises(Unreadable):
        read_record(record, Reading())


@pytest.mark.parametrize("key", ["items", "data", "turns", "pairs", "conversation"])
@pytest.mark.parametrize("given", [TEXTS, [["c", "a"], ["b", "d"]], [["x", "y"]]])
@pytest.mark.parametrize(
    ("asked", "said"), [("instruction", "output"), ("instruction", "response"), ("prompt", "reply")]
)
def test_columns_of_a_question_and_an_answer_win(
    asked: str, said: str, key: str, given: Any
) -> None:
    record = {asked: "Sort these.", said: "a, b, c", key: given}
    conversation, _ = read_record(record, Reading())
    assert [(turn.role, turn.text) for turn in conversation.turns] == ROUND
    assert conversation.ignored == [key]
