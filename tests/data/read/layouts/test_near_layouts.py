"""Records of nearly a known layout: read for what they are, or refused by what is wrong."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from apps.common.errors import InputError
from apps.data.read.layouts.known import recognised
from apps.data.read.reader import Reading, read_record
from tests.data.commands import run_clean

USER, MODEL = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
GEMINI = [{"role": "user", "parts": [{"text": "Q"}]}, {"role": "model", "parts": [{"text": "A"}]}]
SDK = [
    {"role": role, "content": "", "parts": [{"type": "text", "text": text}]}
    for role, text in (("user", "Q"), ("assistant", "A"))
]
READ: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    # record, texts, fields that nothing carries
    "Gemini": (
        {"contents": GEMINI, "systemInstruction": {"parts": [{"text": "S"}]}},
        ["S", "Q", "A"],
        [],
    ),
    "AI SDK": ({"messages": SDK}, ["Q", "A"], []),
    "other lists beside": (
        {"messages": [USER, MODEL], "items": ["a", "b", "c"], "turns": [{"n": 1}, {"n": 2}, {}]},
        ["Q", "A"],
        ["items", "turns"],
    ),
    "longer lists beside": (
        {"messages": [USER, MODEL], "conversation": [USER, MODEL, USER]},
        ["Q", "A", "Q"],
        ["messages"],
    ),
    "a solution and its answer": (
        {"problem": "P", "solution": "So 42.", "answer": "42"},
        ["P", "So 42."],
        ["answer"],
    ),
    "no input": ({"instruction": "I", "input": "<noinput>", "output": "O"}, ["I", "O"], []),
    "no input in a table": ({"instruction": "I", "input": "nan", "output": "O"}, ["I", "O"], []),
    "one conversation's rows": (
        {"messages": [{**USER, "session_id": "a"}, {**MODEL, "session_id": "a"}, USER]},
        ["Q", "A", "Q"],
        ["messages[].session_id"] * 2,
    ),
}


@pytest.mark.parametrize("name", READ)
def test_near_layouts_are_read(name: str) -> None:
    record, texts, ignored = READ[name]
    conversation = read_record(record, Reading())[0]
    assert [turn.text for turn in conversation.turns] == texts
    assert conversation.ignored == ignored


@pytest.mark.parametrize(
    "call",
    [
        {"name": "f", "args": {"x": 1}, "type": "tool_call"},
        {"name": "f", "input": {"x": 1}},
        {"type": "function", "function": {"name": "f", "parameters": {"x": 1}}},
    ],
)
def test_what_a_function_is_called_with_is_read_under_its_names(call: dict[str, Any]) -> None:
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    turns = read_record({"messages": [USER, asked]}, Reading())[0].turns
    function = {"name": "f", "arguments": {"x": 1}}
    assert orjson.loads(turns[1].tool_calls or "") == [{"type": "function", "function": function}]


def test_a_speakers_name_is_no_question() -> None:
    assert recognised({"user": "Ann", "text": "Hi", "reply": "Yo"}) is None
    assert recognised({"user": "U1", "bot": "B1", "message": "Hi"}) is None
    assert recognised({"user": "Hi", "bot": "Yo"}) is not None


@pytest.mark.parametrize(
    ("asked", "said", "what"),
    [("human", "assistant", "text"), ("user", "assistant", "text"), ("user", "response", "body")],
)
def test_a_question_may_stand_beside_the_text_of_both(asked: str, said: str, what: str) -> None:
    record: Any = {asked: "Hi", said: "Yo", what: "Human: Hi Assistant: Yo"}
    conversation = read_record(record, Reading())[0]
    assert [turn.text for turn in conversation.turns] == ["Hi", "Yo"]
    assert conversation.ignored == [what]


@pytest.mark.parametrize("key", ["attachments", "files", "experimental_attachments"])
def test_a_question_about_a_file_that_is_not_there_is_media(key: str) -> None:
    asked = {**USER, key: [{"name": "a.pdf"}]}
    assert read_record({"messages": [asked, MODEL]}, Reading())[0].media == [key]
    assert read_record({"messages": [{**USER, key: []}, MODEL]}, Reading())[0].media == []


@pytest.mark.parametrize("key", ["conversation_id", "sessionId"])
def test_rows_of_several_conversations_are_not_one(key: str, tmp_path: Path) -> None:
    rows = [{**said, key: number} for number in (1, 2) for said in (USER, MODEL)]
    dump = tmp_path / "dump.json"
    for value in (rows, {"messages": rows}):
        dump.write_bytes(orjson.dumps(value))
        with pytest.raises(InputError, match=r"several-conversations; .* make one list of each"):
            run_clean(tmp_path / "out", dump)


def test_a_speaker_that_nobody_knows_is_told_how_to_be_named(tmp_path: Path) -> None:
    dump = tmp_path / "dump.json"
    dump.write_bytes(orjson.dumps({"messages": [{"from": "Ann", "text": "Hi"}]}))
    with pytest.raises(InputError, match="name the speakers, as in --map role:Ann=user"):
        run_clean(tmp_path / "out", dump)


def _deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("levels", [260, 1000])
@pytest.mark.parametrize(
    "record",
    [
        '{"messages": [Q, {"role": "assistant", "tool_calls": {"name": "f", "arguments": DEEP}}]}',
        '{"messages": [Q, A], "tools": [{"name": "f", "parameters": DEEP}]}',
        '{"messages": [Q, A], "moderation": [DEEP]}',
        '{"instruction": "I", "output": "O", "input": DEEP}',
        "[DEEP]",
    ],
)
def test_a_value_in_too_many_others_costs_its_own_record_at_most(
    record: str, levels: int, tmp_path: Path
) -> None:
    said = [f'{{"role": "{one["role"]}", "content": "{one["content"]}"}}' for one in (USER, MODEL)]
    whole = f'{{"messages": [{", ".join(said)}]}}'
    bad = record.replace("Q", said[0]).replace(" A]", f" {said[1]}]").replace("DEEP", _deep(levels))
    dump = tmp_path / "dump.jsonl"
    dump.write_text(f"{whole}\n{bad}\n")
    ledger = run_clean(tmp_path / "out", dump, profile="none")["records"]
    assert ledger["kept"] + sum(ledger["quarantined"].values()) == 2
    assert set(ledger["quarantined"]) <= {"nested-too-deep", "bad-message"}


def test_a_file_of_lists_in_lists_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_text("[" * 500 + "]" * 500)
    with pytest.raises(InputError, match="no object, but lists in lists"):
        run_clean(tmp_path / "out", tmp_path / "dump.json")
