"""Dify's messages are rounds, put together to the conversation that its page shows."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from apps.data.read.layouts import dify
from apps.data.read.record.layout import Names
from tests.data.commands import rows_of, run_clean

OLD = "00000000-0000-0000-0000-000000000000"


def message(key: str, at: Any, **beside: Any) -> dict[str, Any]:
    own = {"id": key, "conversation_id": "c", "inputs": {}, "query": f"Q{key}", "answer": f"A{key}"}
    return {**own, "message_files": [], "feedback": None, "created_at": at, **beside}


def clean(tmp_path: Path, data: bytes, **settings: Any) -> tuple[list[str], dict[str, Any]]:
    (tmp_path / "dump.json").write_bytes(data)
    ledger = run_clean(tmp_path / "out", tmp_path / "dump.json", profile="none", **settings)
    rows = rows_of(tmp_path / "out")
    return [" ".join(m["content"] for m in row["messages"]) for row in rows], ledger


@pytest.mark.parametrize("times", [(3, 2, 1), ("2024-03", "2024-02", "2024-01"), (None, 1, "x")])
@pytest.mark.parametrize("parents", [None, ("2", "1", OLD), (OLD, OLD, OLD), ("2", "1", None)])
def test_a_page_of_the_api_is_one_conversation(parents: Any, times: Any, tmp_path: Path) -> None:
    rows = [message(key, at) for key, at in zip("321", times, strict=True)]
    if None in times:
        rows.reverse()
    for row, parent in zip(rows, parents or (), strict=False):
        row["parent_message_id"] = parent if None not in times else OLD
    page = orjson.dumps({"limit": 20, "has_more": False, "data": rows})
    assert clean(tmp_path, page)[0] == ["Q1 A1 Q2 A2 Q3 A3"]


@pytest.mark.parametrize("parents", [None, ("3", "2", "1", OLD), (OLD, OLD, OLD, OLD)])
@pytest.mark.parametrize("times", [(3, 2, 2, 1), (2, 2, 1, 1), (3, 1, 1, 1)])
@pytest.mark.parametrize("is_reversed", [True, False])
def test_rounds_of_one_second_are_in_order(
    parents: Any, times: Any, is_reversed: bool, tmp_path: Path
) -> None:
    rows = [message(key, at) for key, at in zip("4321", times, strict=True)]
    for row, parent in zip(rows, parents or (), strict=False):
        row["parent_message_id"] = parent
    data = orjson.dumps(rows[::-1] if is_reversed else rows)
    assert clean(tmp_path, data)[0] == ["Q1 A1 Q2 A2 Q3 A3 Q4 A4"]


def test_rounds_all_of_one_second_follow_their_parents(tmp_path: Path) -> None:
    links = [("3", "2"), ("2", "1")]
    rows = [message(key, 1, parent_message_id=above) for key, above in (*links, ("1", OLD))]
    assert clean(tmp_path, orjson.dumps(rows))[0] == ["Q1 A1 Q2 A2 Q3 A3"]


def test_rounds_of_a_long_conversation_are_ordered_in_linear_time() -> None:
    links = [(f"{i}", f"{i - 1}" if i else OLD) for i in range(20_000)]
    rows = [message(key, 1, parent_message_id=above) for key, above in links]
    turns = dify.LAYOUT.read({"conversation_id": "c", "rounds": [*rows[::-1]]}, Names()).turns
    assert [turn.text for turn in turns[::2]] == [f"Q{i}" for i in range(20_000)]


def test_what_two_pages_both_have_and_answers_made_anew_are_beside(tmp_path: Path) -> None:
    rows = [message("1", 1), message("2", 2), message("2", 2), message("3", 3)]
    texts, ledger = clean(tmp_path, orjson.dumps(rows))
    assert texts == ["Q1 A1 Q2 A2 Q3 A3"]
    assert ledger["messages"]["trimmed"] == {"other_branch": 2}


def test_files_are_media_and_other_fields_are_counted(tmp_path: Path) -> None:
    rows = [message("1", 1, message_files=[{"type": "image"}], status="normal")]
    rows.append({**message("2", 2), "conversation_id": "d", "query": "Q", "inputs": {"x": 1}})
    texts, ledger = clean(tmp_path, b"\n".join(map(orjson.dumps, rows)))
    assert texts == ["Q A2"] and ledger["records"]["dropped"] == {"media": 1}
    assert ledger["ignored"] == {"pairs[].status": 1, "pairs[].inputs": 1}


def test_questions_and_answers_with_ids_alone_are_pairs(tmp_path: Path) -> None:
    rows = [{"conversation_id": "c", "query": f"Q{i}", "answer": "A"} for i in range(2)]
    assert clean(tmp_path, orjson.dumps(rows))[0] == ["Q0 A", "Q1 A"]
