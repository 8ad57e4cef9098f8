"""CSV and TSV as people have them: an object for each row.

A quote that opens a cell and is closed nowhere, or in the middle of one, is what somebody wrote.
Its line is taken as it stands, and swallows none of the rows below it.

Of a quote within a cell most tools make two (RFC 4180). Others put a backslash before it: Spark and
R before quotes alone, pandas with `escapechar` and MySQL before each backslash too. A file is read
as the tool wrote it that makes whole rows of most of its first lines. Where no quote has a
backslash before it, backslashes that never stand alone were doubled by the tool if some are four,
or so many stand before n and t that one would be alone. Others are the text's: ""\\\\s+"" is Java.
"""

import csv
import io
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from apps.data.read.column_names import unique_names
from apps.data.read.json_spans import HEAD_BYTES, MAX_RECORD_BYTES

_SEPARATORS = ",;\t|"
_QUOTED = re.compile(r'"[^"]*"')
_SPREADSHEET = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_BEFORE_QUOTE = re.compile(r'(\\+)"')
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_ESCAPED_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*+\\"')
_BACKSLASHES = re.compile(r"\\++")
_MIN_DOUBLED = 4
"""Places, on two lines or more, of which each might be a text's own `\\\\`."""
_MIN_DOUBLED_LETTERS = 32
"""Places such as `\\\\n` and `\\\\theta` among which a text of its own has a single one."""
_DOUBLED_LETTER = re.compile(r"(?<!\\)\\\\(?=[nt])")
_DOUBLED_TWICE = re.compile(r'\\{4,}+(?!"")')
"""Before a quote they may be a string in a program."""
_LIST_IN_CELL = re.compile(r"""[\[{]\s*(?:""|')""")
_BEFORE_TEXT = re.compile(r'\\++(?!["\r\n,;\t|])')
"""Backslashes with no mark behind them: the last of an odd number escapes nothing."""


@dataclass(frozen=True, slots=True)
class _Dialect:
    separator: str
    escaped: Literal["nothing", "quotes", "all"] = "nothing"
    """what has a backslash before it: no mark, quotes, or quotes and backslashes"""


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
    head = [first, *text.readlines(HEAD_BYTES)]
    rows = (cells for cells, _ in _rows(itertools.chain(head, text), _dialect(head, separator)))
    names = unique_names(next(rows, list[str]()))
    for cells in rows:
        if len(cells) <= len(names):
            yield dict(zip(names, cells, strict=False))
        else:
            yield cells


def _dialect(head: list[str], separator: str) -> _Dialect:
    """That of the tool which wrote these first lines."""
    plain, text = _Dialect(separator), "".join(head)
    if _ESCAPED_QUOTE.search(text) is None:
        return _Dialect(separator, "all") if _are_doubled(head) else plain
    has_lone = any(len(run[0]) % 2 for run in _BEFORE_TEXT.finditer(text))
    escaped = _Dialect(separator, "quotes" if has_lone else "all")
    more = _num_whole_rows(head, escaped) - _num_whole_rows(head, plain)
    inside = f"[^{re.escape(separator)}\\r\\n]"
    has_bare_quotes = re.search(f'(?<={inside})"(?={inside})', _ESCAPED.sub("", text)) is not None
    return escaped if more > 0 or (more == 0 and not has_bare_quotes) else plain


def _are_doubled(lines: list[str]) -> bool:
    """Whether the backslashes of the first lines stand in twos that are not the text's own, as
    those of a list in a cell and of a program's strings are."""
    if any(map(_LIST_IN_CELL.search, lines)):
        return False
    runs = [_BACKSLASHES.findall(line) for line in lines if "\\" in line]
    sizes = [len(run) for own in runs for run in own]
    if len(runs) < 2 or len(sizes) < _MIN_DOUBLED or any(size % 2 for size in sizes):
        return False
    text = "".join(lines)
    num_letters = len(_DOUBLED_LETTER.findall(text))
    return _DOUBLED_TWICE.search(text) is not None or num_letters >= _MIN_DOUBLED_LETTERS


def _num_whole_rows(lines: list[str], dialect: _Dialect) -> int:
    """Rows whose quotes enclose cells, as many as there are names."""
    rows = _rows(iter(lines), dialect)
    names, _ = next(rows, (list[str](), False))
    return sum(is_whole and len(cells) == len(names) for cells, is_whole in rows)


def _rows(lines: Iterator[str], dialect: _Dialect) -> Iterator[tuple[list[str], bool]]:
    """Cells of each row that is not blank, and whether its quotes enclose cells; a row goes on
    while its quotes are odd in number."""
    back: deque[str] = deque()
    while row := _next_row(back, lines, dialect):
        cells = _cells(row, dialect)
        is_whole = cells is not None
        if cells is None:
            back.extendleft(reversed(row[1:]))
            cells = next(
                csv.reader(row[:1], delimiter=dialect.separator, quoting=csv.QUOTE_NONE),
                list[str](),
            )
        if cells:
            yield cells, is_whole


def _next_row(back: deque[str], lines: Iterator[str], dialect: _Dialect) -> list[str]:
    """The lines of a row, or those up to the end when its quotes are never even."""
    row: list[str] = []
    is_open, size = False, 0
    while size <= MAX_RECORD_BYTES:
        line = back.popleft() if back else next(lines, None)
        if line is None:
            break
        row.append(line)
        size += len(line)
        bare = line if dialect.escaped == "nothing" else _ESCAPED.sub("", line)
        is_open ^= bare.count('"') % 2 == 1
        if not is_open:
            break
    return row


def _cells(row: list[str], dialect: _Dialect) -> list[str] | None:
    """None when the quotes do not enclose cells."""
    lines, mark = row, None
    if dialect.escaped == "quotes":
        lines = [_BEFORE_QUOTE.sub(_doubled, line) for line in row]
    elif dialect.escaped == "all":
        lines = [_BEFORE_TEXT.sub(_evened, line) for line in row]
        mark = "\\"
    try:
        found = list(csv.reader(lines, delimiter=dialect.separator, escapechar=mark, strict=True))
    except csv.Error:
        if len(row) == 1 and len(row[0]) > MAX_RECORD_BYTES:
            raise
        return None
    return found[0] if len(found) == 1 else None


def _doubled(found: re.Match[str]) -> str:
    """Two quotes for an escaped one. Backslashes before a quote are doubled, and others are not.

    C:\\dir \\"here\\"   ->  C:\\dir ""here""        ends in \\\\"  ->  ends in \\"
    """
    num_backslashes = len(found[1])
    return "\\" * (num_backslashes // 2) + ('""' if num_backslashes % 2 else '"')


def _evened(found: re.Match[str]) -> str:
    """A lone backslash after the first lines is text: it escapes nothing, and is escaped here."""
    return found[0] + "\\" * (len(found[0]) % 2)


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
