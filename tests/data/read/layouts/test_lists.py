"""Lists of texts are a conversation only under names for one, and where no column is."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.data.read.layouts.known import recognised
from apps.data.read.reader import Reading, read_record
from apps.data.read.record.layout import Unreadable
from apps.data.read.record.lists import list_in_cell
from tests.data.commands import rows_of, run_clean

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


@pytest.mark.parametrize("names", [("role", "content"), ("from", "value")])
def test_messages_may_be_columns(names: tuple[str, str], tmp_path: Path) -> None:
    said = [("user", "What floats?"), ("assistant", "Cork does."), ("user", "Only that?")]
    columns = dict(zip(names, map(list, zip(*said, strict=True)), strict=True))
    table = pa.table({"id": ["a"], "conversations": [{**columns, "rating": [1, 2, 3]}]})
    pq.write_table(table, tmp_path / "dump.parquet")
    (tmp_path / "dump.jsonl").write_bytes(orjson.dumps({"messages": columns}))
    for name, ignored in (("dump.parquet", {"messages[].rating": 1}), ("dump.jsonl", {})):
        ledger = run_clean(tmp_path / f"{name}.out", tmp_path / name, profile="none")
        (row,) = rows_of(tmp_path / f"{name}.out")
        assert [(one["role"], one["content"]) for one in row["messages"]] == said
        assert ledger["ignored"] == ignored


@pytest.mark.parametrize(
    "columns", [{"role": ["user"], "content": ["a", "b"]}, {"role": [], "x": 1}, {"x": ["a"]}, {}]
)
def test_columns_of_other_lengths_are_no_messages(columns: dict[str, Any]) -> None:
    assert list_in_cell(columns) is None
