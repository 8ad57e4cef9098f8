"""Pieces of split dumps become one conversation again, and nothing else does."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.data.ledger import Ledger
from apps.data.rules.profiles import Rules
from tests.data.commands import conversation, rows_of, run_clean

TEXTS = [text for i in range(12) for text in (f"What is thing {i}?", f"Thing {i} is a thing.")]


def piece(stem: str, number: int, start: int, stop: int) -> dict[str, Any]:
    """Messages [start, stop) of the whole; those that begin with an answer repeat one."""
    roles = ("human", "gpt")
    turns = [{"from": roles[i % 2], "value": f"{TEXTS[i]} ({stem})"} for i in range(start, stop)]
    return {"id": f"{stem}_{number}", "conversations": turns}


def whole(stem: str, start: int, stop: int) -> list[str]:
    return [f"{text} ({stem})" for text in TEXTS[start:stop]]


def split(stem: str) -> list[dict[str, Any]]:
    return [piece(stem, 0, 0, 8), piece(stem, 1, 7, 14), piece(stem, 10, 13, 24)]


def kept(folder: Path) -> dict[str, list[str]]:
    return {row["source_id"]: [m["content"] for m in row["messages"]] for row in rows_of(folder)}


@pytest.mark.parametrize("form", ["array", "lines", "parquet"])
@pytest.mark.parametrize("unit_bytes", [1, 1 << 20])
def test_chains_are_joined_wherever_their_pieces_lie(
    form: str, unit_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.data import clean

    monkeypatch.setattr(clean, "_MB", unit_bytes)
    records = [one for stem in ("a", "b", "c_2") for one in split(stem)]
    records += [conversation(f"alone_{i}", "What floats?", f"Cork {i}.") for i in range(3)]
    random.Random(4).shuffle(records)
    dump = tmp_path / "dump"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), dump, row_group_size=2)
    else:
        lines = b"\n".join(map(orjson.dumps, records))
        dump.write_bytes(orjson.dumps(records) if form == "array" else lines)
    ledger = run_clean(tmp_path / "out", dump, profile="none")
    found = kept(tmp_path / "out")
    assert {name: found[name] for name in ("a_0", "b_0", "c_2_0")} == {
        f"{stem}_0": whole(stem, 0, 24) for stem in ("a", "b", "c_2")
    }
    assert len(found) == 6 and ledger["records"]["joined"] == 6
    assert ledger["records"]["input"] == len(records)
    assert ledger["messages"]["trimmed"] == {"repeated_answer": 6}
    assert ledger["continuations"] == 0
    Ledger.from_json(ledger).check()


@pytest.mark.parametrize("form", ["array", "lines", "parquet", "gzip"])
@pytest.mark.parametrize("first_id", ["q{}", "q_{}"])
def test_a_dump_that_is_split_late_is_joined(form: str, first_id: str, tmp_path: Path) -> None:
    told = "A long answer about corks and other things that float. " * 400
    records = [conversation(first_id.format(i), f"What is {i}?", f"{i}: {told}") for i in range(60)]
    records += split("a")
    lines = b"\n".join(map(orjson.dumps, records))
    dump = tmp_path / "dump"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), dump)
    else:
        data = {"array": orjson.dumps(records), "lines": lines, "gzip": gzip.compress(lines)}
        dump.write_bytes(data[form])
    ledger = run_clean(tmp_path / "out", dump, profile="none")
    assert kept(tmp_path / "out")["a_0"] == whole("a", 0, 24)
    assert (ledger["records"]["joined"], ledger["records"]["kept"]) == (2, 61)


def test_a_piece_without_its_predecessor_is_marked_and_may_be_dropped(tmp_path: Path) -> None:
    dump = tmp_path / "dump.json"
    dump.write_bytes(orjson.dumps([piece("a", 3, 7, 14), piece("a", 5, 13, 18), *split("b")]))
    ledger = run_clean(tmp_path / "out", dump, profile="none")
    assert kept(tmp_path / "out")["a_3"] == whole("a", 7, 18)
    assert (ledger["continuations"], ledger["records"]["joined"]) == (1, 3)
    marks = {row["source_id"]: dict(row["scores"]) for row in rows_of(tmp_path / "out")}
    assert marks == {"a_3": {"continuation": 1.0}, "b_0": {}}
    ledger = run_clean(tmp_path / "strict", dump, profile="strict")
    assert ledger["records"]["dropped"] == {"continuation": 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda piece: piece["conversations"][0].update(value="Another answer."),
        lambda piece: piece.update(id="other_1"),
        lambda piece: piece["conversations"].pop(0),
    ],
)
def test_what_does_not_overlap_exactly_is_not_joined(change: Any, tmp_path: Path) -> None:
    second = piece("a", 1, 7, 14)
    change(second)
    dump = tmp_path / "dump.json"
    dump.write_bytes(orjson.dumps([piece("a", 0, 0, 8), second, piece("z", 9, 1, 4)]))
    ledger = run_clean(tmp_path / "out", dump, profile="none")
    assert ledger["records"]["joined"] == 0 and len(rows_of(tmp_path / "out")) == 3


def test_a_greeting_joins_nothing_where_ids_count_conversations(tmp_path: Path) -> None:
    greeting = {"from": "gpt", "value": "Hello! How can I assist you today?"}
    said = [{"from": "human", "value": "How deep is the sea?"}, {"from": "gpt", "value": "Deep."}]
    records = [
        {"id": "chat_1", "conversations": [{"from": "human", "value": "Hi"}, greeting]},
        {"id": "chat_2", "conversations": [greeting, *said]},
        {"id": "chat_3", "conversations": said},
    ]
    dump = tmp_path / "dump.json"
    dump.write_bytes(orjson.dumps(records))
    assert run_clean(tmp_path / "out", dump, profile="none")["records"]["joined"] == 0
    dump.write_bytes(orjson.dumps([records[0], records[1], {**records[1], "id": "chat_4"}]))
    assert run_clean(tmp_path / "two", dump, profile="none")["records"]["joined"] == 0


def test_late_pieces_in_tables_are_joined_also_over_files(tmp_path: Path) -> None:
    first, second, third = split("a")
    alone = [conversation(f"q{i}", f"What floats {i}?", f"Cork {i}.") for i in range(40)]
    pq.write_table(pa.Table.from_pylist([*alone, first, second]), tmp_path / "0.parquet")
    pq.write_table(pa.Table.from_pylist([third]), tmp_path / "1.parquet")
    pq.write_table(pa.Table.from_pylist([piece("b", 0, 0, 8)]), tmp_path / "2.parquet")
    pq.write_table(pa.Table.from_pylist([piece("b", 1, 7, 14)]), tmp_path / "3.parquet")
    inputs = [tmp_path / f"{i}.parquet" for i in range(4)]
    ledger = run_clean(tmp_path / "out", *inputs, profile="none")
    found = kept(tmp_path / "out")
    assert (found["a_0"], found["b_0"]) == (whole("a", 0, 24), whole("b", 0, 14))
    assert (ledger["records"]["joined"], ledger["continuations"]) == (3, 0)


def test_pieces_that_are_there_twice_and_late_pieces_are_joined_once(tmp_path: Path) -> None:
    first, second, third = split("a")
    alone = [conversation(f"q{i}", f"What floats {i}?", f"Cork {i}.") for i in range(25)]
    dump = tmp_path / "dump.json"
    dump.write_bytes(orjson.dumps([*alone, second, first, third, second]))
    ledger = run_clean(tmp_path / "out", dump, profile="none")
    assert kept(tmp_path / "out")["a_0"] == whole("a", 0, 24)
    assert (ledger["records"]["joined"], ledger["continuations"]) == (2, 1)


def test_ids_that_only_look_like_pieces_stay_apart(tmp_path: Path) -> None:
    dump = tmp_path / "dump.json"
    records = [conversation(f"identity_{i}", "Who are you?", f"A helper, {i}.") for i in range(9)]
    dump.write_bytes(json.dumps(records).encode())
    ledger = run_clean(tmp_path / "out", dump, profile="none")
    assert (ledger["records"]["kept"], ledger["records"]["joined"]) == (9, 0)


def test_a_joined_conversation_that_a_rule_drops_is_whole_in_dropped(tmp_path: Path) -> None:
    dump = tmp_path / "dump.json"
    first = split("a")
    first[2]["conversations"][-1]["value"] = "Too many requests in 1 hour. Try again later."
    dump.write_bytes(orjson.dumps(first))
    ledger = run_clean(tmp_path / "out", dump)
    assert ledger["records"]["dropped"] == {"banner": 1} and ledger["records"]["joined"] == 2
    (row,) = rows_of(tmp_path / "out" / "dropped")
    assert len(orjson.loads(row["record"])["conversations"]) == 24
    Ledger.from_json(ledger).check()


def test_what_a_piece_says_of_itself_is_said_of_the_whole(tmp_path: Path) -> None:
    first, second, third = split("a")
    records = [
        {**first, "model": "gpt-4", "views": 3},
        {**second, "model": "gpt-4", "toxic": True, "shares": 2},
        {**third, "model": "gpt-3.5", "plugins": ["browsing"]},
    ]
    (tmp_path / "dump.json").write_bytes(orjson.dumps(records))
    ledger = run_clean(tmp_path / "out", tmp_path / "dump.json", profile="none")
    assert ledger["ignored"] == {"model": 1, "shares": 1, "views": 1}
    for number, rules in enumerate((Rules(flagged=("toxic",)), Rules(plugins="drop"))):
        out = tmp_path / f"out{number}"
        ledger = run_clean(out, tmp_path / "dump.json", profile="none", rules=rules)
        assert ledger["records"]["kept"] == 0 and sum(ledger["records"]["dropped"].values()) == 1


@pytest.mark.parametrize("form", ["column", "message"])
@pytest.mark.parametrize("other", ["Be brief.", "Be long."])
def test_pieces_under_one_system_text_are_joined(form: str, other: str, tmp_path: Path) -> None:
    records = split("a")[:2]
    for record, text in zip(records, ("Be brief.", other), strict=True):
        if form == "column":
            record["system"] = text
        else:
            record["conversations"].insert(0, {"from": "system", "value": text})
    (tmp_path / "dump.json").write_bytes(orjson.dumps(records))
    ledger = run_clean(tmp_path / "out", tmp_path / "dump.json", profile="none")
    if other == "Be brief.":
        assert kept(tmp_path / "out") == {"a_0": [other, *whole("a", 0, 14)]}
        assert sum(ledger["messages"]["trimmed"].values()) == (1 if form == "column" else 2)
    else:
        assert len(kept(tmp_path / "out")) == 2 and ledger["records"]["joined"] == 0


def test_a_system_text_that_only_the_first_piece_has_is_that_of_all(tmp_path: Path) -> None:
    records = split("a")
    records[0]["conversations"].insert(0, {"from": "system", "value": "Be brief."})
    (tmp_path / "dump.json").write_bytes(orjson.dumps(records))
    ledger = run_clean(tmp_path / "out", tmp_path / "dump.json", profile="none")
    assert kept(tmp_path / "out") == {"a_0": ["Be brief.", *whole("a", 0, 24)]}
    assert ledger["messages"]["trimmed"] == {"repeated_answer": 2}


@pytest.mark.parametrize("form", ["lines", "gzip"])
def test_pieces_in_two_files_of_a_folder_are_joined(form: str, tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    pieces = [one for stem in ("a", "b") for one in split(stem)]
    ending = ".jsonl" + (".gz" if form == "gzip" else "")
    first = [one for one in pieces if one["id"].endswith("_0")]
    last = [one for one in pieces if not one["id"].endswith("_0")]
    for name, records in (("2-first", first), ("1-last", last)):
        lines = b"\n".join(map(orjson.dumps, records))
        data = gzip.compress(lines) if form == "gzip" else lines
        (tmp_path / "dump" / (name + ending)).write_bytes(data)
    ledger = run_clean(tmp_path / "out", tmp_path / "dump", profile="none")
    assert kept(tmp_path / "out") == {f"{s}_0": whole(s, 0, 24) for s in ("a", "b")}
    assert (ledger["records"]["joined"], ledger["continuations"]) == (4, 0)


def test_other_files_of_a_folder_with_the_same_ids_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    for name, stem in (("1.json", "x"), ("2.json", "y")):
        records = [{**one, "id": one["id"].replace(stem, "a", 1)} for one in split(stem)]
        (tmp_path / "dump" / name).write_bytes(orjson.dumps(records))
    ledger = run_clean(tmp_path / "out", tmp_path / "dump", profile="none")
    texts = sorted([m["content"] for m in row["messages"]] for row in rows_of(tmp_path / "out"))
    assert texts == [whole("x", 0, 24), whole("y", 0, 24)]
    assert (ledger["records"]["joined"], ledger["continuations"]) == (4, 0)


def test_a_dump_that_two_files_split_in_two_ways_is_joined_in_each(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    ways = ([0, 8, 14, 24], [0, 6, 14, 24])
    for name, cuts in enumerate(ways):
        starts = zip([0, *(cut - 1 for cut in cuts[1:-1])], cuts[1:], strict=True)
        records = [piece("a", number * (name + 1), *one) for number, one in enumerate(starts)]
        (tmp_path / "dump" / f"{name}.json").write_bytes(orjson.dumps(records))
    ledger = run_clean(tmp_path / "out", tmp_path / "dump", profile="none")
    texts = [[m["content"] for m in row["messages"]] for row in rows_of(tmp_path / "out")]
    assert texts == [whole("a", 0, 24)] * 2
    assert (ledger["records"]["joined"], ledger["continuations"]) == (4, 0)
