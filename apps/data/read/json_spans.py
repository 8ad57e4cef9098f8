"""Where the records of a JSON dump begin and end, found without parsing it.

In valid JSON an unescaped `{"key":` never lies inside a string, because the quote would be escaped
there. So the places where an object opens with the key that records open with (the anchors) are
record starts: found at the speed of a regular expression, in any byte range, and again right after
whatever one broken record does. A dump whose inner objects open with the same key, or whose records
are no objects, is split by its brackets instead.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from apps.data.read.layouts import known
from apps.data.read.record import lists, messages
from apps.data.read.record.layout import Names
from apps.data.read.record.parse import parse

HEAD_BYTES = 1 << 20
"""How much of a file decides its separation."""
MAX_RECORD_BYTES = 64 << 20
"""A longer record is not read into memory."""
ANCHOR_BYTES = 512
"""An anchor (brace, blanks, key, blanks, colon) is shorter than this."""

Kind = Literal["lines", "anchors", "brackets"]
_MAX_KEYS = 8
"""First keys that are tried on a dump whose first record breaks off."""
_MESSAGE_LISTS = frozenset(key.encode() for key in lists.KEYS)
_MESSAGE_KEYS = frozenset(key.encode() for key in (*messages.WHO, *messages.WHAT))
_BLANKS = b" \t\r\n"
_SEPARATORS = b" \t\r\n,"
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]|[^\s,\[\]{}":]++', re.DOTALL)
_FIRST_KEY = re.compile(rb'\{\s*"((?:[^"\\]|\\.){1,200})"\s*:')
_HOLDS_RECORDS = re.compile(rb"\s*[\[{]")
_IS_EMPTY = re.compile(rb"\s*(?:\]|\Z)")
_LIST_BEHIND = re.compile(rb"\s*:\s*\[\s*[\[{]")
_TAIL = re.compile(rb'\]\s*(?:\}|,\s*"|\Z)')


@dataclass(frozen=True, slots=True)
class Separation:
    """How the records of a file lie apart."""

    kind: Kind
    keys: tuple[str, ...] = ()
    """First keys of the records as the file spells them, in Latin-1 (anchors only)."""
    body: int = 0
    """Offset of the first byte after the opening bracket, or after a byte-order mark."""

    def anchor(self) -> re.Pattern[bytes]:
        names = b"|".join(re.escape(key.encode("latin-1")) for key in self.keys)
        return re.compile(rb'\{\s{0,100}"(?:' + names + rb')"\s{0,100}:')


def sniff(head: bytes, names: Names = known.NO_NAMES) -> Separation:
    """How the records of a file lie apart, from its first HEAD_BYTES.

    b'[{"id": 1}, {"id": 2}]'   ->  anchors, keys ("id",), body 1: the byte after the bracket
    b'{"id": 1}\n{"id": 2}'     ->  lines, body 0
    b'[[1, 2], [3]]'            ->  brackets, body 1: no object opens a record
    """
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    text = head[start:].lstrip(_BLANKS)
    start = len(head) - len(text)
    if text.startswith(b"["):
        is_record = known.is_record(
            [_first_value(text[1:])], names
        )  # itself, as are the lists after it
        return _of_array(head, start + (0 if is_record else 1))
    if not text.startswith(b"{"):
        return Separation("lines", body=start)
    first_line = text.split(b"\n", 1)[0].rstrip(_SEPARATORS)
    spans = list(elements(first_line))
    if b"\n" in text.rstrip() and len(spans) == 1 and spans[0][2]:
        return Separation("lines", body=start)
    opening = _record_list(text)
    if opening and not (
        known.is_record(_first_value(text), names)
        or _is_message_list(opening[0], text[opening[1] :])
    ):
        return _of_array(head, start + opening[1])
    if b"\n" not in text.rstrip():
        return Separation("lines", body=start)
    return _of_array(head, start)


def _first_value(text: bytes) -> object:
    """The first value of `text`, parsed; None when it is not whole or no JSON."""
    span = next(elements(text), None)
    if span is None or not span[2]:
        return None
    return parse(text[span[0] : span[1]].strip(_SEPARATORS))


def _record_list(text: bytes) -> tuple[bytes, int] | None:
    """Key and first byte of the first list of objects or lists in the object that opens `text`.

    Of its first empty list when it has none such.
    """
    depth, key, found = 0, b"", None
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in b"[{":
            if depth == 1 and first == 0x5B:
                if _HOLDS_RECORDS.match(text, token.end()):
                    return key, token.end()
                if _IS_EMPTY.match(text, token.end()):
                    found = found or (key, token.end())
            depth += 1
        elif first in b"]}":
            depth -= 1
            if depth == 0:
                break
        elif depth == 1 and first == 0x22:
            key = token[0][1:-1]
    return found


def _is_message_list(key: bytes, inside: bytes) -> bool:
    """Whether a file's first list is one record's messages rather than the records."""
    value = _first_value(inside)
    if value is not None:
        return messages.is_message(value) and not known.is_record(value)
    first = _FIRST_KEY.match(inside.lstrip(_BLANKS))
    return key in _MESSAGE_LISTS and first is not None and first[1] in _MESSAGE_KEYS


def _of_array(head: bytes, body: int) -> Separation:
    """Anchors when the head's records open with keys that no inner object opens with.

    Judged by its valid records, or by the first when there is none.
    """
    found = [head[body + start : body + end] for start, end, _ in elements(head[body:])]
    samples = [data for data in found if parse(data) is not None] or _behind_a_broken_one(
        head[body:]
    )
    samples = samples or found[:1]
    outer: set[bytes] = set()
    inner: set[bytes] = set()
    for data in samples:
        opens = [match[1] for match in _FIRST_KEY.finditer(data)]
        if not data.startswith(b"{") or not opens:
            return Separation("brackets", body=body)
        outer.add(opens[0])
        inner.update(opens[1:])
    if not outer or outer & inner:
        return Separation("brackets", body=body)
    separation = Separation("anchors", tuple(key.decode("latin-1") for key in sorted(outer)), body)
    begins = separation.anchor().match
    return (
        separation if all(begins(data) for data in samples) else Separation("brackets", body=body)
    )


def _behind_a_broken_one(data: bytes) -> list[bytes]:
    """Conversations of an array whose first record breaks off, and so hides their brackets."""
    keys = dict.fromkeys(match[1] for match in _FIRST_KEY.finditer(data))
    for key in itertools.islice(keys, _MAX_KEYS):
        spans = spans_of(data, Separation("anchors", (key.decode("latin-1"),)))
        texts = [data[start:end].strip(_SEPARATORS) for start, end in spans]
        found = [t for t in texts if known.is_record(_first_value(t)) and parse(t) is not None]
        if found:
            return found
    return []


def elements(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """(start, end, closed) of the values that lie side by side in `data`.

    Closing brackets without an opening one are skipped. With one that ends an array, the rest of an
    enclosing object (`], "meta": ...}`) is too, but for its other lists of records. The last value
    may be unclosed: cut off, or its quotes or brackets do not match.
    """
    depth = start = 0
    is_rest = False
    for token in _TOKEN.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            if depth == 0 and is_rest and first == 0x5B and _begins_records(data, token.end()):
                is_rest = False
                continue
            if depth == 0:
                start = token.start()
            depth += 1
        elif first in b"]}":
            if depth == 0:
                if is_rest and first == 0x7D:
                    return
                is_rest = is_rest or (first == 0x5D and bool(_TAIL.match(data, token.start())))
                continue
            depth -= 1
            if depth == 0 and not is_rest:
                yield start, token.end(), True
        elif depth == 0 and not is_rest and not _LIST_BEHIND.match(data, token.end()):
            text = token[0]
            yield token.start(), token.end(), first != 0x22 or (len(text) > 1 and text[-1] == 0x22)
    if depth and not is_rest:
        yield start, len(data), False


def _begins_records(data: bytes, start: int) -> bool:
    return known.is_record(_first_value(data[start : start + HEAD_BYTES]))


def record_starts(
    chunks: Iterable[bytes], separation: Separation, offset: int = 0
) -> Iterator[int]:
    """Offsets at which records start, from the chunks of a file in order.

    The chunks begin at `offset`, which must be 0 for brackets.
    """
    if separation.kind == "lines":
        return _line_starts(chunks, separation.body, offset)
    if separation.kind == "anchors":
        return _anchor_starts(chunks, separation, offset)
    return _bracket_starts(chunks, separation.body)


def _line_starts(chunks: Iterable[bytes], body: int, offset: int = 0) -> Iterator[int]:
    """Every line, blank ones too: the ordinal of a record is its line number."""
    base, line = offset, body if offset <= body else None
    for chunk in chunks:
        at = chunk.find(b"\n", max(0, body - base))
        while at >= 0:
            if line is not None:
                yield line
            line = base + at + 1
            at = chunk.find(b"\n", at + 1)
        base += len(chunk)
    if line is not None and line < base:
        yield line


def _anchor_starts(chunks: Iterable[bytes], separation: Separation, offset: int) -> Iterator[int]:
    anchor = separation.anchor()
    base, carry, last = offset, b"", separation.body - 1
    for chunk in chunks:
        data = carry + chunk
        for match in anchor.finditer(data):
            if base + match.start() > last:
                last = base + match.start()
                yield last
        carry = data[-ANCHOR_BYTES:]
        base += len(data) - len(carry)


def _bracket_starts(chunks: Iterable[bytes], body: int) -> Iterator[int]:
    base, carry, depth = 0, b"", 0
    for chunk in chunks:
        data = carry + chunk
        done = 0
        for token in _TOKEN.finditer(data, max(0, body - base)):
            first = data[token.start()]
            if token.end() == len(data) and first not in b"[]{}":
                break
            done = token.end()
            if first in b"[{":
                if depth == 0:
                    yield base + token.start()
                depth += 1
            elif first in b"]}":
                depth = max(0, depth - 1)
            elif depth == 0:
                yield base + token.start()
        if len(data) - done > MAX_RECORD_BYTES:
            done = len(data)
        carry = data[done:]
        base += done
    if carry.strip(_SEPARATORS) and depth == 0:
        yield base + len(carry) - len(carry.lstrip(_SEPARATORS))


def spans_of(data: bytes, separation: Separation) -> list[tuple[int, int]]:
    """(start, end) of the records in a byte range that starts and ends at a record start."""
    if separation.kind == "brackets":
        return [(start, end) for start, end, _ in elements(data)]
    if separation.kind == "lines":
        starts = list(_line_starts([data], 0))
    else:
        starts = [match.start() for match in separation.anchor().finditer(data)] or [0]
    return list(zip(starts, [*starts[1:], len(data)], strict=True))
