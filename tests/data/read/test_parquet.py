"""Parquet dumps: by row groups, and what cannot be decoded of them."""

import contextlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.data.read import parquet
from apps.data.read.reader import Reading
from tests.data.read.reading import RECORDS, TEXTS, as_openai, kept_texts, read, reasons


@pytest.mark.parametrize("column", ["struct", "json", "messages"])
def test_parquet_is_read_by_row_groups(column: str, tmp_path: Path) -> None:
    values = {
        "struct": ("conversations", [r["conversations"] for r in RECORDS]),
        "json": ("conversations", [json.dumps(r["conversations"]) for r in RECORDS]),
        "messages": ("messages", [as_openai(r) for r in RECORDS]),
    }
    name, rows = values[column]
    table = pa.table({"id": [r["id"] for r in RECORDS], name: rows})
    pq.write_table(table, tmp_path / "dump.parquet", row_group_size=7)
    outputs, total = read(tmp_path / "dump.parquet", unit_bytes=300)
    assert len(outputs) > 3
    assert kept_texts(outputs) == TEXTS
    assert total.messages.kept == 80


def test_a_parquet_of_mixed_dumps_is_read_by_the_names_that_are_set(tmp_path: Path) -> None:
    empty = dict.fromkeys(("from", "value", "role", "content", "text"))
    openai = [{**empty, **turn} for turn in as_openai(RECORDS[1])]
    texts = [
        {**empty, "from": turn["from"], "text": turn["value"]}
        for turn in RECORDS[2]["conversations"]
    ]
    table = pa.table({"messages": [RECORDS[0]["conversations"], openai, texts]})
    pq.write_table(table, tmp_path / "dump.parquet")
    assert kept_texts(read(tmp_path / "dump.parquet")[0]) == TEXTS[:3]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_parquet_text_that_is_no_utf_8_costs_its_own_row_only(
    kind: pa.DataType, tmp_path: Path
) -> None:
    texts = pa.array([b"Hello, hello.", b"bad \xff text", "Good day, Zoë".encode()])
    texts = texts.cast(pa.binary() if kind == pa.string() else pa.large_binary()).view(kind)
    turns = pa.StructArray.from_arrays([pa.array(["user"] * 3), texts], ["role", "content"])
    offsets = pa.array([0, 1, 2, 3], pa.int32())
    messages = pa.ListArray.from_arrays(offsets, turns)
    pq.write_table(pa.table({"id": [1, 2, 3], "messages": messages}), tmp_path / "dump.parquet")
    outputs, total = read(tmp_path / "dump.parquet")
    assert kept_texts(outputs) == ["Hello, hello.", "Good day, Zoë"]
    assert reasons(outputs) == ["bad-utf-8"]
    assert b'"bad \xff text"' in outputs[0].quarantined[0].raw
    assert total.records.input == 3


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ms", "UTC"), pa.date32()])
def test_a_time_that_no_calendar_has_costs_nothing(kind: pa.DataType, tmp_path: Path) -> None:
    times = pa.array([2**30, 1 << (30 if kind == pa.date32() else 60), None], pa.int64())
    times = times.cast(pa.int32()).cast(kind) if kind == pa.date32() else times.cast(kind)
    meta = pa.StructArray.from_arrays([times], ["at"])
    table = pa.table({"meta": meta, "conversations": [r["conversations"] for r in RECORDS[:3]]})
    pq.write_table(table, tmp_path / "dump.parquet")
    assert kept_texts(read(tmp_path / "dump.parquet")[0]) == TEXTS[:3]


def damaged(path: Path) -> Path:
    """Four row groups of ten; the second one's compressed pages are overwritten."""
    pq.write_table(pa.Table.from_pylist(RECORDS), path, row_group_size=10, compression="zstd")
    group = pq.ParquetFile(path).metadata.row_group(1)
    data = bytearray(path.read_bytes())
    for i in range(group.num_columns):
        column = group.column(i)
        start = column.dictionary_page_offset or column.data_page_offset
        data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1_700_000_000_000], pa.timestamp("ms", tz="Mars/Phobos")),
        pa.array([(1 << 63) - 1], pa.duration("s")),
        pa.array([[("a", 9223372036854775)]], pa.map_(pa.string(), pa.timestamp("ms"))),
        pa.array([[9223372036854775]], pa.list_(pa.timestamp("ms"), 1)),
        pa.StructArray.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["k", "k"]),
    ],
    ids=str,
)
def test_a_column_that_python_cannot_hold_costs_nothing(column: pa.Array, tmp_path: Path) -> None:
    conversations = pa.array([RECORDS[0]["conversations"]])
    names = ["conversations", "odd"]
    table = pa.Table.from_arrays([conversations, column], names=names)
    pq.write_table(table, tmp_path / "dump.parquet")
    outputs, total = read(tmp_path / "dump.parquet")
    assert kept_texts(outputs) == TEXTS[:1] and total.ignored == {"odd": 1}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_texts_that_are_bytes_are_texts(form: str, kind: pa.DataType, tmp_path: Path) -> None:
    image = pa.array([b"\x89PNG\xff", None, b"\xff"], kind)
    asked = pa.array(["Qué?".encode(), b"bad \xff", b"Why?"], kind)
    roles, said = (
        pa.array([b"user", b"assistant"] * 3, kind),
        pa.array([one for text in asked.to_pylist() for one in (text, b"So.")], kind),
    )
    turns = pa.StructArray.from_arrays([roles, said], names=["role", "content"])
    table = pa.table({"messages": pa.ListArray.from_arrays([0, 2, 4, 6], turns), "image": image})
    path = tmp_path / f"dump.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    outputs, total = read(path)
    assert kept_texts(outputs) == ["Qué?", "Why?"]
    assert total.records.quarantined == {"bad-message": 1} and total.ignored == {"image": 2}


def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path: Path) -> None:
    outputs, total = read(damaged(tmp_path / "dump.parquet"))
    assert kept_texts(outputs) == TEXTS[:10] + TEXTS[20:]
    assert total.records.quarantined == {"damaged-row-group": 10}
    ids = [row.id[-8:] for output in outputs for row in output.kept]
    assert ids == [f"{i:08d}" for i in (*range(10), *range(20, 40))]


def test_a_parquet_that_cannot_be_fetched_is_no_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "dump.parquet"
    pq.write_table(pa.Table.from_pylist(RECORDS), path, row_group_size=10)

    class Unplugged(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() < 1000 and size != 4:
                raise OSError("the cable is out")
            return super().read(size)

    with pytest.MonkeyPatch.context() as patch:
        opened = contextlib.nullcontext(Unplugged(path.read_bytes()))
        patch.setattr(parquet.storage, "open_file", lambda uri: opened)
        with pytest.raises(OSError, match="the cable is out"):
            list(parquet.read(str(path), 0, 4, Reading(), ordinal=0, prefix="p"))
