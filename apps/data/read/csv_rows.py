"""CSV and TSV as people have them: an object for each row.

A quote that opens a cell and is closed nowhere, or in the middle of one, is what somebody wrote.
Its line is taken as it stands, and swallows none of the rows below it.
"""

import csv
import io
import itertools
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator

from apps.data.read.column_names import unique_names
from apps.data.read.json_spans import MAX_RECORD_BYTES
from apps.data.read.record import lists
from apps.data.read.record.parse import parse_cell

_LISTS = frozenset((*lists.KEYS, "data", "history", "chat_messages", "mapping", "tools", "flags"))
_SEPARATORS = ",;\t|"
_QUOTED = re.compile(r'"[^"]*"')
_SPREADSHEET = re.compile(r"sep=(.)\s*", re.IGNORECASE)


def is_csv(uri: str) -> bool:
    """By the name, packed or not: a text with commas may be anything."""
    name = uri.lower().removesuffix(".gz").removesuffix(".zst")
    return name.endswith((".csv", ".tsv"))


def rows_of_csv(chunks: Iterable[bytes]) -> Iterator[object]:
    """Rows under the names of the first one; the separator is the one that it has most of.

    A row with more cells than names is a list, and so no record.

        prompt,completion
        "Hi, you",Hello        ->  {"prompt": "Hi, you", "completion": "Hello"}

    Raises csv.Error for a cell that is longer than any record may be.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    text = io.TextIOWrapper(
        io.BufferedReader(_Stream(iter(chunks))), "utf-8-sig", "surrogateescape", newline=""
    )
    first = text.readline()
    named = _SPREADSHEET.fullmatch(first)
    first = text.readline() if named else first
    bare = _QUOTED.sub("", first)
    separator = named[1] if named else max(_SEPARATORS, key=bare.count)
    rows = _rows(itertools.chain([first], text), separator)
    names = unique_names(next(rows, list[str]()))
    for cells in rows:
        if len(cells) <= len(names):
            yield {name: _value(name, cell) for name, cell in zip(names, cells, strict=False)}
        else:
            yield cells


def _rows(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    """Cells of each row that is not blank; a row goes on while its quotes are odd in number."""
    back: deque[str] = deque()
    while row := _next_row(back, lines):
        cells = _cells(row, separator)
        if cells is None:
            back.extendleft(reversed(row[1:]))
            cells = next(
                csv.reader(row[:1], delimiter=separator, quoting=csv.QUOTE_NONE), list[str]()
            )
        if cells:
            yield cells


def _next_row(back: deque[str], lines: Iterator[str]) -> list[str]:
    """The lines of a row, or those up to the end when its quotes are never even."""
    row: list[str] = []
    is_open, size = False, 0
    while size <= MAX_RECORD_BYTES:
        line = back.popleft() if back else next(lines, None)
        if line is None:
            break
        row.append(line)
        size += len(line)
        is_open ^= line.count('"') % 2 == 1
        if not is_open:
            break
    return row


def _cells(row: list[str], separator: str) -> list[str] | None:
    """None when the quotes do not enclose cells."""
    try:
        found = list(csv.reader(row, delimiter=separator, strict=True))
    except csv.Error:
        if len(row) == 1 and len(row[0]) > MAX_RECORD_BYTES:
            raise
        return None
    return found[0] if len(found) == 1 else None


def _value(name: str, cell: str) -> object:
    """Cells are texts, but for the columns that no layout has as such."""
    if name in _LISTS and cell[:1] in ("[", "{"):
        value = parse_cell(cell)
        return cell if value is None else value
    if name == "rank":
        return _number(cell)
    return cell


def _number(cell: str) -> float | str | None:
    """Beside empty cells pandas writes 1 as 1.0; what is no number stays what it is."""
    try:
        return float(cell) if cell and math.isfinite(float(cell)) else None
    except ValueError:
        return cell


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
