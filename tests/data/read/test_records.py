"""Every form of input is read record by record, and what is broken costs nothing else."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from apps.common.errors import CriaError, InputError
from apps.data import clean_range, ranges
from apps.data.config import CleanConfig
from apps.data.read import index, json_spans, records, source
from apps.data.read.reader import Reading, read_record
from apps.data.read.records import Record
from apps.data.rules.profiles import Rules, none
from tests.data.commands import conversation, rows_of, run_clean
from tests.data.read.reading import FORMS, RECORDS, TEXTS, kept_texts, mutate, read, reasons


@pytest.mark.parametrize(("unit_bytes", "piece_bytes"), [(1, 97), (700, 512), (1 << 20, 1 << 20)])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_whole_in_ranges_of_any_size(
    form: str, unit_bytes: int, piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES", max(600, unit_bytes))
    monkeypatch.setattr(index, "PIECE_BYTES", piece_bytes)
    path = tmp_path / "dump"
    path.write_bytes(FORMS[form](RECORDS))
    outputs, total = read(path, unit_bytes=unit_bytes)
    assert kept_texts(outputs) == (TEXTS[:1] if form == "one-record" else TEXTS)
    assert total.records.kept == total.records.input
    ids = [row.id for output in outputs for row in output.kept]
    assert len(set(ids)) == len(ids)


BREAKAGES = {
    "bad escape": (lambda t: t.replace(b"Answer 7", rb"Answer \x 7"), "bad-json"),
    "bad utf-8": (lambda t: t.replace(b"Answer 7", b"Answer \xff 7"), "bad-utf-8"),
    "NaN": (lambda t: t.replace(b'"value":"Answer 7 ]}"', b'"value":NaN'), "bad-message"),
    "open string": (lambda t: t.replace(b'Answer 7 ]}"', b"Answer 7 ]}"), "truncated"),
    "inner quotes": (lambda t: t.replace(b"Answer 7", b'An "answer" 7'), "bad-json"),
    "missing bracket": (lambda t: t.replace(b'Answer 7 ]}"}]', b'Answer 7 ]}"}'), "truncated"),
    "number for text": (lambda t: t.replace(b'"Answer 7 ]}"', b"7"), "bad-message"),
    "null turn": (
        lambda t: t.replace(b'{"from":"gpt","value":"Answer 7 ]}"}', b"null"),
        "bad-message",
    ),
    "unknown role": (
        lambda t: t.replace(b'"gpt","value":"Answer 7 ', b'"alien","value":"A '),
        "unknown-role",
    ),
}


@pytest.mark.parametrize(
    ("name", "lines"),
    [(name, lines) for name in BREAKAGES for lines in (False, True)],
)
def test_a_broken_record_is_quarantined_and_its_neighbours_survive(
    name: str, lines: bool, tmp_path: Path
) -> None:
    mutate, reason = BREAKAGES[name]
    parts = [orjson.dumps(record) for record in RECORDS]
    broken = mutate(parts[7])
    assert broken != parts[7]
    parts[7] = broken
    path = tmp_path / "dump.json"
    path.write_bytes(b"\n".join(parts) if lines else b"[" + b",".join(parts) + b"]")
    outputs, total = read(path)
    assert kept_texts(outputs) == TEXTS[:7] + TEXTS[8:]
    assert reasons(outputs) == [reason]
    assert outputs[0].quarantined[0].raw.rstrip(b",") == broken
    assert total.records.input == 40


@pytest.mark.parametrize("at", [20, 39])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("dump", ["array", "keyed"])
def test_an_inner_object_that_opens_as_records_do_splits_no_record(
    dump: str, before: bool, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_spans, "HEAD_BYTES", 1000)  # none is in the head of the dump
    plugins = [{"id": "p", "x": [1]}, {"id": "q", "x": {"id": "r"}}]
    turns = RECORDS[at]["conversations"]
    odd = {"id": "r", "plugins": plugins, "conversations": turns}
    late = {"id": "r", "conversations": turns, "plugins": plugins}
    records = [*RECORDS[:at], odd if before else late, *RECORDS[at + 1 :]]
    path = tmp_path / "dump.json"
    path.write_bytes(orjson.dumps(records if dump == "array" else {"data": records}))
    outputs, _ = read(path)
    assert (kept_texts(outputs), reasons(outputs)) == (TEXTS, [])


@pytest.mark.parametrize(
    ("plugins", "has"), [(None, False), ([], False), ({}, False), (["browser"], True)]
)
def test_an_empty_list_of_plugins_is_none(plugins: Any, has: bool) -> None:
    value = {**RECORDS[0], "plugins": plugins}
    assert read_record(value, Reading())[0].has_plugins is has


def test_missing_and_doubled_commas_lose_nothing(tmp_path: Path) -> None:
    parts = [orjson.dumps(record) for record in RECORDS]
    text = b"[" + b",".join(parts[:10]) + b"\n" + b",,".join(parts[10:]) + b",]"
    (tmp_path / "dump.json").write_bytes(text)
    assert kept_texts(read(tmp_path / "dump.json")[0]) == TEXTS


@pytest.mark.parametrize("key", [b'"id"', b'"Xd"'])
@pytest.mark.parametrize("length", [40, None])
def test_a_broken_first_record_is_quarantined_and_its_neighbours_survive(
    key: bytes, length: int | None, tmp_path: Path
) -> None:
    parts = [orjson.dumps(record) for record in RECORDS]
    parts[0] = parts[0].replace(b'"id"', key).replace(b"Question", rb"\x")[:length]
    (tmp_path / "dump.json").write_bytes(b"[" + b",".join(parts) + b"]")
    outputs, _ = read(tmp_path / "dump.json")
    assert kept_texts(outputs) == TEXTS[1:]
    assert reasons(outputs) == ["truncated" if length else "bad-json"]
    assert outputs[0].quarantined[0].raw == parts[0].rstrip(b",")
    ids = [row.id for output in outputs for row in output.kept]
    assert len(set(ids)) == len(ids)


def test_a_cut_off_file_keeps_its_complete_records(tmp_path: Path) -> None:
    text = orjson.dumps(RECORDS)
    (tmp_path / "dump.json").write_bytes(text[: len(text) // 2])
    outputs, _ = read(tmp_path / "dump.json")
    assert kept_texts(outputs) == TEXTS[: len(kept_texts(outputs))]
    assert 15 < len(kept_texts(outputs)) < 25
    assert reasons(outputs) == ["truncated"]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_damaged_archive_keeps_what_can_be_decoded(codec: str, tmp_path: Path) -> None:
    many = [conversation(f"{i}", random.Random(i).randbytes(300).hex(), "ok") for i in range(2000)]
    packed = (gzip.compress if codec == "gzip" else zstandard.compress)(orjson.dumps(many))
    (tmp_path / "dump").write_bytes(packed[: len(packed) // 2])
    _, total = read(tmp_path / "dump")
    assert total.records.kept > 500
    assert total.records.quarantined["damaged-file"] == 1


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_damage_after_a_whole_member_is_told(codec: str, damage: str, tmp_path: Path) -> None:
    compress = gzip.compress if codec == "gzip" else zstandard.compress
    lines = [orjson.dumps(record) + b"\n" for record in RECORDS]
    first, second = compress(b"".join(lines[:25])), compress(b"".join(lines[25:]))
    after = second[:12] if damage == "cut" else b"no archive"
    (tmp_path / "dump").write_bytes(first + after)
    outputs, total = read(tmp_path / "dump")
    assert kept_texts(outputs) == TEXTS[:25]
    assert total.records.quarantined == {"damaged-file": 1}


def test_an_archive_that_cannot_be_read_at_all_says_why(tmp_path: Path) -> None:
    (tmp_path / "dump.zst").write_bytes(zstandard.compress(orjson.dumps(RECORDS))[:20])
    with pytest.raises(InputError, match=r"dump\.zst: EOFError: the file ends inside"):
        run_clean(tmp_path / "out", tmp_path / "dump.zst")


@pytest.mark.parametrize("coding", ["utf-8", "utf-16", "utf-16-le", "utf-32", "escaped"])
def test_half_a_surrogate_pair_is_marked_and_costs_nothing_else(
    coding: str, tmp_path: Path
) -> None:
    text = json.dumps(RECORDS, ensure_ascii=coding == "escaped")
    half = "\\ud83d" if coding == "escaped" else "\ud83d"
    text = text.replace("Answer 7 ", f"Answer {half} ")
    coding = "ascii" if coding == "escaped" else coding
    errors = "strict" if coding == "ascii" else "surrogatepass"
    (tmp_path / "dump.json").write_bytes(text.encode(coding, errors))
    outputs, total = read(tmp_path / "dump.json")
    assert kept_texts(outputs) == TEXTS
    assert outputs[0].kept[7].messages[1]["content"] == "Answer \ufffd ]}"
    assert total.repairs == {"half_characters": 1}


def test_half_a_pair_in_a_title_mends_no_message(tmp_path: Path) -> None:
    record = {**conversation("a", "Hi there", "Hello."), "title": "cut \ud83d"}
    (tmp_path / "dump.json").write_text(json.dumps([record]))
    assert read(tmp_path / "dump.json")[1].repairs == {}


@pytest.mark.parametrize("indent", [None, 1])
def test_half_a_pair_in_a_message_of_a_tree_is_counted(indent: int | None, tmp_path: Path) -> None:
    messages = [
        {"message_id": "m1", "parent_id": None, "text": "Hi \ud83d", "role": "prompter"},
        {"message_id": "m2", "parent_id": "m1", "text": "Ho \ud83d\ude00", "role": "assistant"},
    ]
    (tmp_path / "dump.json").write_text(json.dumps(messages, indent=indent))
    outputs, total = read(tmp_path / "dump.json")
    said = [message["content"] for message in outputs[0].kept[0].messages]
    assert (said, total.repairs) == (["Hi \ufffd", "Ho 😀"], {"half_characters": 1})


@pytest.mark.parametrize("levels", [100, 200, 700])
def test_trees_of_any_depth_lose_no_message(levels: int, tmp_path: Path) -> None:
    roles = ("prompter", "assistant")
    lines = [
        {"message_id": f"m{i}", "parent_id": f"m{i - 1}", "text": f"t{i}", "role": roles[i % 2]}
        for i in range(levels)
    ]
    lines[3]["labels"] = json.loads("[" * 300 + "]" * 300)
    (tmp_path / "dump.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    _, total = read(tmp_path / "dump.jsonl")
    assert total.messages.input == levels


def test_messages_in_a_circle_and_below_it_come_once_each(tmp_path: Path) -> None:
    parents = {"m1": "m2", "m2": "m1", "m3": "m2", "m4": None, "m5": "m4"}
    lines = [
        {"message_id": name, "parent_id": parent, "text": name, "role": role}
        for (name, parent), role in zip(
            parents.items(), ("prompter", "assistant") * 3, strict=False
        )
    ]
    (tmp_path / "dump.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    _, total = read(tmp_path / "dump.jsonl")
    assert total.messages.input == len(parents)


def test_a_dropped_record_with_half_a_pair_is_shown(tmp_path: Path) -> None:
    record = conversation("a", "Is this \ud83d", "OpenAI made me, said ChatGPT.")
    text = json.dumps([record, RECORDS[0]], ensure_ascii=False)
    (tmp_path / "dump.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    run_clean(tmp_path / "out", tmp_path / "dump.json")
    dropped = rows_of(tmp_path / "out" / "dropped")
    assert [row["rule"] for row in dropped] == ["blocked_words"]
    assert "Is this \ufffd" in dropped[0]["record"]


def test_values_that_are_no_conversations_are_quarantined(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_bytes(
        b'[1, "x", null, {"a": 1}, {"conversations": 3}, ' + orjson.dumps(RECORDS[0]) + b"]"
    )
    outputs, _ = read(tmp_path / "dump.json")
    assert kept_texts(outputs) == TEXTS[:1]
    assert sorted(reasons(outputs)) == [
        "bad-json",
        "no-messages",
        "no-messages",
        "not-an-object",
        "not-an-object",
    ]


@pytest.mark.parametrize("text", [b"", b"  \n", b"[]", b"{}", b'{"data": []}', b"\xef\xbb\xbf"])
def test_empty_files_are_empty(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_bytes(text)
    outputs, total = read(tmp_path / "dump.json")
    assert kept_texts(outputs) == []
    assert total.bytes.input == len(text)


def test_a_message_of_50_mb_is_quarantined_and_its_neighbours_survive(tmp_path: Path) -> None:
    huge = [RECORDS[0], conversation("huge", "a question", "<p>" + "y" * (50 << 20)), RECORDS[1]]
    (tmp_path / "dump.json").write_bytes(orjson.dumps(huge))
    outputs, _ = read(tmp_path / "dump.json")
    assert kept_texts(outputs) == TEXTS[:2]
    assert reasons(outputs) == ["html-too-long"]
    assert len(outputs[0].quarantined[0].raw) == 1 << 20


@pytest.mark.parametrize("form", ["array", "lines", "nested-ids"])
@pytest.mark.parametrize("at", [3, 39])
def test_a_record_of_any_length_is_quarantined_without_being_read(
    form: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_spans, "MAX_RECORD_BYTES", 2000)
    monkeypatch.setattr(records, "MAX_QUARANTINED_BYTES", 100)
    monkeypatch.setattr(clean_range, "MAX_UNIT_BYTES", 1000)
    taken: list[int] = []
    read_range = source.read_range

    def watched(uri: str, start: int, end: int) -> bytes:
        taken.append(end - start)
        return read_range(uri, start, end)

    huge = [*RECORDS[:at], conversation("h", "q", "x" * 50_000), *RECORDS[at + 1 :]]
    path = tmp_path / "dump.json"
    path.write_bytes(FORMS[form](huge))
    config = CleanConfig(inputs=(str(path),), out="unused", rules=none())
    pieces = index.units([str(path)], 1000, config.reading())
    found = index.join([index.index(unit.args, str(tmp_path)) for unit in pieces])[0]
    monkeypatch.setattr(source, "read_range", watched)
    outputs = [clean_range.clean_range(unit.args) for unit in ranges.range_units([found], config)]
    assert max(taken) == 3000
    assert kept_texts(outputs) == TEXTS[:at] + TEXTS[at + 1 :]
    assert reasons(outputs) == ["record-too-long"]
    assert sum(output.ledger.bytes.input for output in outputs) == (
        path.stat().st_size - found.head_bytes
    )


@pytest.mark.parametrize("num_files", [250, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_files_never_crash_and_always_add_up(
    num_files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(11)
    whole = {name: make(RECORDS) for name, make in FORMS.items()}
    for i in range(num_files):
        data = bytearray(whole[draw.choice(list(whole))])
        for _ in range(draw.randint(1, 4)):
            mutate(data, draw)
        path = tmp_path / f"dump{i % 10}"
        path.write_bytes(data)
        monkeypatch.setattr(index, "PIECE_BYTES", draw.choice([501, 32 << 20]))
        read(path, unit_bytes=draw.choice([1, 999, 1 << 20]))


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_a_failure_names_file_and_record(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(record: Record, rules: Rules) -> None:
        if record.source_id == "r9":
            raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(clean_range, "RULES", {"ours": fail})
    path = tmp_path / f"dump.{kind}"
    path.write_bytes(orjson.dumps(RECORDS))
    start = path.read_bytes().index(b'{"id":"r9"')
    place = f"record at bytes {start:,}-{start + len(orjson.dumps(RECORDS[9])):,}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), path)
        place = r"record \w+-00000009"
    with pytest.raises(CriaError, match=f"{path}, {place}.*ZeroDivisionError: a fault of ours"):
        run_clean(tmp_path / "out", path)


def test_a_value_that_is_no_record_before_the_last_one_hides_nothing(tmp_path: Path) -> None:
    parts = [orjson.dumps(record) for record in RECORDS]
    text = b"[" + b",".join([*parts[:-1], b"null", parts[-1]]) + b"]"
    (tmp_path / "dump.json").write_bytes(text)
    outputs, _ = read(tmp_path / "dump.json")
    assert kept_texts(outputs) == TEXTS and reasons(outputs) == ["bad-json"]


@pytest.mark.parametrize("unit_bytes", [700, 1 << 20])
def test_records_that_open_with_another_key_beyond_the_head_are_all_read(
    unit_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_spans, "HEAD_BYTES", 1500)
    values = [{"model": "m", **r} if i > 25 and i % 2 else r for i, r in enumerate(RECORDS)]
    (tmp_path / "dump.json").write_bytes(orjson.dumps(values))
    assert kept_texts(read(tmp_path / "dump.json", unit_bytes=unit_bytes)[0]) == TEXTS


def test_a_record_with_many_objects_that_open_like_a_record_is_read(tmp_path: Path) -> None:
    many = {"id": "L", "cites": [{"id": f"{i}"} for i in range(80)], **conversation("L", "q", "a")}
    values = [conversation(f"r{i}", f"{i}" * 9000, "a") for i in range(130)]
    (tmp_path / "dump.json").write_bytes(orjson.dumps([*values, many, *RECORDS]))
    outputs, total = read(tmp_path / "dump.json")
    assert kept_texts(outputs)[-len(TEXTS) - 1 :] == ["q", *TEXTS]
    assert total.records.kept == total.records.input == 131 + len(TEXTS)


@pytest.mark.parametrize("last", [False, True])
def test_a_record_behind_one_that_goes_on_in_a_later_span_is_read(
    last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_spans, "HEAD_BYTES", 600)
    values = [*RECORDS[:10], {**RECORDS[10], "cites": [{"id": "c"}]}, {"model": "m", **RECORDS[11]}]
    values += [] if last else RECORDS[12:]
    (tmp_path / "dump.json").write_bytes(orjson.dumps(values))
    outputs, total = read(tmp_path / "dump.json")
    assert kept_texts(outputs) == TEXTS[: len(values)]
    assert total.records.kept == total.records.input == len(values)
    ids = [row.id for output in outputs for row in output.kept]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("unit_bytes", [700, 1 << 20])
@pytest.mark.parametrize("opens", ["id", "role"])
def test_both_lists_of_an_object_of_splits_are_read(
    opens: str, unit_bytes: int, tmp_path: Path
) -> None:
    def record(text: str) -> dict[str, Any]:
        said = [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]
        said = [{"id": text, **message} if opens == "id" else message for message in said]
        return {"id": text, "messages": said}

    splits = {"train": TEXTS[:30], "note": 1, "users": [{"name": "x"}], "test": TEXTS[30:]}
    splits |= {name: list(map(record, splits[name])) for name in ("train", "test")}
    (tmp_path / "dump.json").write_bytes(orjson.dumps({**splits, "meta": [1, 2]}))
    assert kept_texts(read(tmp_path / "dump.json", unit_bytes=unit_bytes)[0]) == TEXTS
