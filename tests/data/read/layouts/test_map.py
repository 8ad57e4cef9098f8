"""A map names the roles, fields and columns of a layout that nobody knows."""

import json
from pathlib import Path
from typing import Any

import pytest

from apps.common.errors import ConfigError
from apps.data.read.names import as_text, parse_map
from tests.data.commands import run_clean
from tests.data.read.layouts.one_record import ANSWER, ASKED, clean_one, said


def test_a_map_reads_what_no_layout_knows(tmp_path: Path) -> None:
    record = {"dialog_lines": [{"by": "Anna", "body": "Hi there."}, {"by": "R2", "body": "Beep."}]}
    names = (
        "role:Anna=user,role:R2=assistant,field:by=role,field:body=content,"
        "column:dialog_lines=messages"
    )
    clean_one(tmp_path, record, map=names)
    assert said(tmp_path) == [("user", "Hi there."), ("assistant", "Beep.")]


def test_a_map_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("column: {ask: prompt, reply_text: completion}\n")
    record = {"ask": "What floats?", "reply_text": "Cork."}
    clean_one(tmp_path, record, map=str(tmp_path / "map.yaml"))
    assert said(tmp_path) == [("user", "What floats?"), ("assistant", "Cork.")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("role:x", "write role:x=assistant for a speaker, or field:x=role for a field"),
        ("role:x=alien", "expected one of system, user, assistant, tool"),
        ("colour:x=y", "expected entries such as"),
        ("field:x=colour", "--map gives field 'x' as 'colour'"),
        ("role:gpt4=assistant,content:text=...", "'content:text=...'.*: write field:text=content"),
        ("content:text", "write field:text=content"),
        ("content:text=body", "write field:body=content"),
        ("content:body=text", "write field:body=content"),
        ("messages:dialog_lines", "write column:dialog_lines=messages"),
        ("text=content", "expected entries such as"),
        ("role:a=user;role:b=assistant", "expected a comma between two entries"),
        ("role:a=user column:b=messages", "expected a comma between two entries"),
        ("role:a=user,role:a=assistant", "names role 'a' twice, as 'user' and 'assistant'"),
        ("content:", "expected entries such as"),
    ],
)
def test_a_map_with_a_fault_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_map(text)


def test_a_map_is_kept_as_it_was_given() -> None:
    text = "role:R2=assistant,role:r2=assistant,field:by=role,column:d=messages"
    assert as_text(parse_map(text)) == text
    assert parse_map("role: R2 = assistant , field:by =role").fields == {"by": "role"}
    assert parse_map("role:r2=user,role:R2=assistant").roles == {"r2": "user", "R2": "assistant"}
    odd = '{"role":{" x":"user","a=b role:c":"user"}}'
    assert parse_map(as_text(parse_map(odd))) == parse_map(odd)


def test_a_name_may_hold_commas(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text('{column: {"What, asked=": prompt, said: completion}}')
    (tmp_path / "dump.jsonl").write_text('{"What, asked=": "Hi?", "said": "Yo."}')
    given = str(tmp_path / "map.yaml")
    run_clean(tmp_path / "out", tmp_path / "dump.jsonl", profile="none", map=given)
    assert said(tmp_path) == [("user", "Hi?"), ("assistant", "Yo.")]
    with pytest.raises(ConfigError, match="--map has ''; expected role, field and column"):
        parse_map('{"column": {"a": "prompt"}')


@pytest.mark.parametrize("value", [[ASKED, ANSWER], None])
def test_of_two_columns_that_are_one_none_is_lost(value: Any, tmp_path: Path) -> None:
    other = [{"role": "user", "content": "B?"}, {"role": "assistant", "content": "B."}]
    record = {"dialog": value, "messages": other}
    (tmp_path / "dump.jsonl").write_text(json.dumps(record))
    dump = tmp_path / "dump.jsonl"
    ledger = run_clean(tmp_path / "out", dump, profile="none", map="column:dialog=messages")
    asked = ASKED["content"] if value else "B?"
    assert said(tmp_path)[0] == ("user", asked)
    assert ledger["ignored"] == ({"messages (2)": 1} if value else {})


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_fields_of_messages_in_a_cell_are_mapped(form: str, tmp_path: Path) -> None:
    cell = json.dumps([{"who": "human", "body": "Hi"}, {"who": "bot", "body": "Yo"}])
    quoted = cell.replace('"', '""')
    text = f'talk\n"{quoted}"\n' if form == "csv" else json.dumps({"talk": cell})
    (tmp_path / f"dump.{form}").write_text(text)
    given = "column:talk=messages,field:who=role,field:body=content"
    run_clean(tmp_path / "out", tmp_path / f"dump.{form}", profile="none", map=given)
    assert said(tmp_path) == [("user", "Hi"), ("assistant", "Yo")]
