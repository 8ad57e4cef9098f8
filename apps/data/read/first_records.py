"""What the first records of a file are: the layouts they have, or what is in them instead."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from apps.common.files import storage
from apps.common.json_value import JsonObject
from apps.data.read import encoding, json_spans
from apps.data.read.json_spans import Separation
from apps.data.read.layouts import alpaca, known
from apps.data.read.reader import Reading
from apps.data.read.record.layout import Names, Regrouped, list_of
from apps.data.read.record.lists import message_list
from apps.data.read.record.parse import as_line, parse, with_halves

MOST = 20
_AROUND = b" \t\r\n,"


@dataclass(frozen=True, slots=True)
class Seen:
    """Of the first records of a file."""

    layouts: tuple[str, ...] = ()
    first: str | None = None
    """what the first record holds, when no record has a layout"""
    nearest: tuple[str, ...] = ()
    is_told_to_a_model: bool = False
    """whether Alpaca's instructions are what the system says"""
    not_utf8: str = ""
    """what the file seems to be instead, and what to do, where some of it is not"""
    is_foreign: bool = False
    """whether that is more than damage"""

    @property
    def regrouped(self) -> Regrouped | None:
        """Puts parts of conversations together; None where the records are whole ones."""
        return known.BY_NAME[self.layouts[0]].regrouped if self.layouts else None


def of_json(head: bytes, separation: Separation, reading: Reading) -> Seen:
    """Of a file's first bytes; the last record in them may be cut off."""
    spans = _pieces(head[separation.body :], separation)
    seen = of_values((value for piece in spans if (value := parse(piece)) is not None), reading)
    not_utf8, is_foreign = encoding.of_head(head)
    return replace(seen, not_utf8=not_utf8, is_foreign=is_foreign)


def _pieces(data: bytes, separation: Separation) -> Iterator[bytes]:
    """The bytes of each record."""
    if not data:
        return
    if separation.kind == "lines":
        spans = iter(json_spans.spans_of(data, separation))
    else:
        spans = ((start, end) for start, end, _ in json_spans.elements(data))
    for start, end in spans:
        yield data[start:end].strip(_AROUND)


def of_values(values: Iterator[object], reading: Reading) -> Seen:
    """Of the first MOST values."""
    names: dict[str, None] = {}
    unknown, records = list[object](), list[JsonObject]()
    for given in itertools.islice(values, MOST):
        value = _inner(given, reading.names)
        record = known.as_record(value, reading.names)
        if record is not None and (layout := known.recognised(record)) is not None:
            names[layout.name] = None
            records.append(record)
        elif record is None or message_list(record) is None:
            unknown.append(value)
    chosen = [reading.layout] if reading.layout else list(names)
    if chosen or not unknown:
        return Seen(
            layouts=tuple(chosen),
            is_told_to_a_model=not unknown and alpaca.are_told_to_a_model(records),
        )
    nearest = tuple(layout.name for layout in known.nearest(unknown[0]))
    return Seen(first=known.seen_in(unknown[0]), nearest=nearest)


def _inner(value: object, names: Names) -> object:
    """The first of several records that a file holds as one list."""
    items = list_of(value)
    return items[0] if items and not known.is_record(items, names) else value


def lines_of(uri: str, separation: Separation) -> Iterator[bytes]:
    """Every record of a JSON file as a line; a text may have a line break that is not escaped."""
    for piece in _pieces(storage.read_bytes(uri)[separation.body :], separation):
        value = with_halves(piece) if b"\n" in piece else None
        line = as_line(value) if value is not None else None
        yield piece.replace(b"\n", b" ") if line is None else line
