"""Tables as JSON lines: CSV, TSV and Arrow files, a record for each row."""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import IO

import orjson
import pyarrow as pa

from apps.data.read import parquet
from apps.data.read.json_spans import MAX_RECORD_BYTES
from apps.data.read.record import lists
from apps.data.read.record.parse import parse_cell

_LISTS = frozenset((*lists.KEYS, "data", "history", "chat_messages", "mapping", "tools", "flags"))
_SEPARATORS = ",;\t|"
_ROWS_AT_A_TIME = 256


def is_csv(uri: str) -> bool:
    """By the name, packed or not: a text with commas may be anything."""
    name = uri.lower().removesuffix(".gz").removesuffix(".zst")
    return name.endswith((".csv", ".tsv"))


def of_csv(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Rows under the names of the first one; the separator is the one that it has most of.

    A row with more cells than names is no object, and so no record.

        prompt,completion
        "Hi, you",Hello        ->  {"prompt": "Hi, you", "completion": "Hello"}

    Raises csv.Error for a cell that is longer than any record may be.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    text = io.TextIOWrapper(
        io.BufferedReader(_Stream(iter(chunks))), "utf-8-sig", "surrogateescape", newline=""
    )
    first = text.readline()
    separator = max(_SEPARATORS, key=first.count)
    lines = _with_first(first, text)
    reader = csv.reader(lines, delimiter=separator)
    names = next(reader, [])
    for cells in reader:
        if cells:
            yield _line(_row(names, cells) if len(cells) <= len(names) else cells)


def _row(names: list[str], cells: list[str]) -> dict[str, object]:
    """Cells are texts, but for the columns that no layout has as such."""
    return {name: _value(name, cell) for name, cell in zip(names, cells, strict=False)}


def _value(name: str, cell: str) -> object:
    if name in _LISTS and cell[:1] in ("[", "{"):
        value = parse_cell(cell)
        return cell if value is None else value
    if name == "rank":
        return int(cell) if cell.isdigit() else None
    return cell


def _with_first(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _line(row: object) -> bytes:
    """Bytes that are no UTF-8 stay what they are, and cost their own record."""
    try:
        return orjson.dumps(row) + b"\n"
    except TypeError:
        text = json.dumps(row, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "surrogateescape")


class _Stream(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._held = chunk
        size = min(len(buffer), len(self._held))
        buffer[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


def of_arrow(handle: IO[bytes], *, is_stream: bool) -> Iterator[bytes]:
    """Rows of an Arrow stream, as `datasets` writes them, or of an Arrow file.

    Raises pa.ArrowException where the file is damaged.
    """
    try:
        for batch in _batches(pa.PythonFile(handle, mode="r"), is_stream=is_stream):
            yield from _lines(batch)
    except OSError as error:
        if error.errno is not None:
            raise
        raise pa.ArrowInvalid(str(error)) from error  # what it says of a damaged message


def _batches(source: pa.PythonFile, *, is_stream: bool) -> Iterator[pa.RecordBatch]:
    if is_stream:
        yield from pa.ipc.open_stream(source)
        return
    file = pa.ipc.open_file(source)
    for i in range(file.num_record_batches):
        yield file.get_batch(i)


def _lines(batch: pa.RecordBatch) -> Iterator[bytes]:
    parquet.check(batch)
    for start in range(0, len(batch), _ROWS_AT_A_TIME):
        for row in parquet.rows_of(batch.slice(start, _ROWS_AT_A_TIME)):
            yield (row if isinstance(row, bytes) else parquet.as_json(row)) + b"\n"
