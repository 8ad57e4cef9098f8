"""Records of a byte range: parsed one by one, or quarantined one by one with the reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import orjson

from apps.common.errors import CorruptError
from apps.common.json_value import JsonValue
from apps.data.html import detect, evidence, to_markdown
from apps.data.read import encoding, json_spans
from apps.data.read.json_spans import Separation
from apps.data.read.layouts import known
from apps.data.read.reader import Reading, read_record, refusal
from apps.data.read.record.layout import (
    LeftOut,
    RawConversation,
    Turn,
    Unreadable,
    list_of,
    object_of,
)
from apps.data.read.record.lists import mended_in_cells, message_list
from apps.data.read.record.parse import parse, parse_mended

MAX_QUARANTINED_BYTES = 1 << 20
"""More of a record's bytes than this are not copied; its range still says where they lie."""
_AROUND = b" \t\r\n,"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_CONTINUED = 256
"""Objects inside a record that open with the records' key; the head of a dump has none such."""


@dataclass(slots=True)
class Record:
    """One source conversation, with where its raw bytes lie."""

    id: str
    source_id: str
    start: int
    end: int
    raw: bytes
    turns: list[Turn]
    model: str | None = None
    has_plugins: bool = False
    language: str | None = None
    scores: dict[str, float] = field(default_factory=dict[str, float])
    layout: str = ""
    """name of the layout it had"""
    html: detect.Html = "auto"
    """whether its answers are the HTML of a page"""
    flags: frozenset[str] = frozenset()
    """which of those that `rules.flagged` knows it says of itself"""
    tools: str | None = None
    """JSON of the functions that the model could call"""
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])
    """messages that are no part of the conversation"""
    ignored: list[str] = field(default_factory=list[str])
    """fields with a value that nothing here carries"""
    repaired: dict[str, int] = field(default_factory=dict[str, int])
    """messages that reading mended, by what was wrong with them"""
    refused: tuple[str, str] | None = None
    """rule and detail, when it is dropped as it was read"""
    is_continuation: bool = False
    """whether it begins with an answer, and what was before is not there"""
    num_joined: int = 0
    """other records that are parts of it"""
    joined_bytes: int = 0
    """those of their spans"""


@dataclass(slots=True)
class Broken:
    """A record that could not be read. `raw` may be cut; the span [start, end) is the whole."""

    start: int
    end: int
    reason: str
    raw: bytes
    num_messages: int = 0


def read_json(
    data: bytes,
    separation: Separation,
    reading: Reading,
    *,
    offset: int,
    ordinal: int,
    prefix: str,
    unread: int = 0,
) -> Iterator[Record | Broken]:
    """Every record of a range that starts at a record. Ids are `<prefix>-<ordinal>`; of the range's
    last record, `data` lacks `unread` bytes, because it is too long.

    A span that does not parse goes on when an object inside its record opened with the records'
    key. Else it is searched for whole values that lie side by side in it, as when a comma or
    bracket is missing or a record opens with another key than its neighbours.
    """
    spans = json_spans.spans_of(data, separation)
    first = spans[0][0] if spans and separation.kind == "anchors" else 0
    if data[:first].strip(_AROUND):
        yield from _recovered(data[:first], reading, f"{prefix}-{ordinal:08d}.0", offset)
    stop = 0
    for i, (start, end) in enumerate(spans):
        if i < stop:
            continue
        record_id = f"{prefix}-{ordinal + i:08d}"
        at, num_bytes = offset + start, end - start + (unread if i == len(spans) - 1 else 0)
        if num_bytes > json_spans.MAX_RECORD_BYTES:
            yield Broken(at, at + num_bytes, "record-too-long", cut(data[start:end]))
            continue
        raw = data[start:end].strip(_AROUND)
        if not raw:
            continue
        value, mended = parse_mended(raw)
        if value is None and separation.kind == "anchors":
            value, raw, stop, mended = _continued(data, spans, i)
        if value is None:
            yield from _recovered(data[start:end], reading, record_id, at)
        else:
            at = offset + data.index(raw[:1], start)  # only what was stripped lies before it
            yield from _of_value(value, raw, reading, record_id, at, mended)
        if stop > i + 1:  # the last span of a value that went on may hold more than its end
            rest, name = start + len(raw), f"{prefix}-{ordinal + stop - 1:08d}"
            yield from _recovered(data[rest : spans[stop - 1][1]], reading, name, offset + rest)


def _continued(
    data: bytes, spans: list[tuple[int, int]], i: int
) -> tuple[object, bytes, int, list[str]]:
    """The value that begins with span `i` and ends in a later one, its bytes, the next span, and
    the texts in it that were mended.

    None for a value that ends in its own span, for none, and for one around a conversation.
    """
    start, limit = spans[i][0], spans[min(i + _MAX_CONTINUED, len(spans)) - 1][1]
    around = data[start : min(limit, start + json_spans.MAX_RECORD_BYTES)]
    end = start + next(json_spans.elements(around))[1]
    stop = i + 1
    while stop < len(spans) and spans[stop][0] < end:
        stop += 1
    if any(_is_conversation(data[slice(*span)]) for span in spans[i + 1 : stop - 1]):
        return None, b"", i, []
    raw = data[start:end]
    value, mended = parse_mended(raw) if stop > i + 1 else (None, [])
    return (None, b"", i, []) if value is None else (value, raw, stop, mended)


def _of_value(
    value: object, raw: bytes, reading: Reading, record_id: str, at: int, mended: Sequence[str]
) -> Iterator[Record | Broken]:
    """One record, or those of an array."""
    if _holds_conversations(value):
        yield from _recovered(raw[1:], reading, record_id, at + 1)
    else:
        yield to_record(value, raw, reading, record_id, at, mended)


def _holds_conversations(value: object) -> bool:
    """Whether a value is an array of records, as where several dumps were put in one file."""
    items = list_of(value)
    return bool(items) and not known.is_record(items) and known.is_record(items[0])


def _is_conversation(data: bytes) -> bool:
    return known.is_record(parse(data.strip(_AROUND)))


def _recovered(
    data: bytes, reading: Reading, record_id: str, offset: int
) -> Iterator[Record | Broken]:
    num_read = 0
    for start, end, closed in json_spans.elements(data):
        raw = data[start:end].rstrip(b" \t\r\n,")
        value, mended = parse_mended(raw)
        if raw == _BYTE_ORDER_MARK:
            continue
        if value is None:
            reason = _fault(raw, closed=closed)
            yield Broken(offset + start, offset + start + len(raw), reason, cut(raw))
            continue
        name = record_id if num_read == 0 else f"{record_id}.{num_read}"
        num_read += 1
        yield to_record(value, raw, reading, name, offset + start, mended)


def _fault(raw: bytes, *, closed: bool) -> str:
    """Why bytes are no value: another encoding makes no JSON of anything but its quotes."""
    if not closed:
        return "truncated"
    return "bad-json" if encoding.is_utf8(raw) else "bad-utf-8"


def cut(raw: bytes) -> bytes:
    return raw[:MAX_QUARANTINED_BYTES]


def to_record(
    value: object,
    raw: bytes,
    reading: Reading,
    record_id: str,
    start: int,
    mended: Sequence[str] = (),
) -> Record | Broken:
    """A parsed value whose bytes are `raw`; `mended` are its texts that parsing had to mend."""
    end = start + len(raw)
    try:
        said, layout = read_record(value, reading)
    except Unreadable as error:
        return Broken(start, end, error.reason, cut(raw), error.num_messages)
    return Record(
        id=record_id,
        source_id=said.source_id,
        start=start,
        end=end,
        raw=raw,
        turns=said.turns,
        model=said.model,
        has_plugins=said.has_plugins,
        layout=layout.name,
        html="never" if reading.html == "auto" and not layout.has_html else reading.html,
        flags=frozenset(said.flags),
        tools=said.tools,
        left_out=said.left_out,
        ignored=said.ignored,
        repaired=_repaired(said, [*mended, *mended_in_cells(object_of(value) or {})]),
        refused=refusal(said, reading),
    )


def _repaired(said: RawConversation, mended: Sequence[str]) -> dict[str, int]:
    halves = sum(any(text in turn.text for text in mended) for turn in said.turns)
    return {**said.repaired, "half_characters": halves} if halves else said.repaired


def joined(record: Record, pieces: list[bytes], reading: Reading) -> Record:
    """A record with the pieces that go on where it ends; each repeats the last answer before it.

    What a piece says of itself is said of the whole; what the whole says otherwise is named.
    """
    value, mended = parse_mended(record.raw)
    whole = known.as_record(value, reading.names) or {}
    key, messages = message_list(whole) or ("conversations", [])
    others: list[Record] = []
    repeated: list[Turn] = []
    for piece in pieces:
        value, more_mended = parse_mended(piece)
        mended += more_mended
        given = known.as_record(value, reading.names) or {}
        _, more = message_list(given) or ("", [])
        num_repeated, turns = _repeated(more, key, reading)
        repeated += turns
        messages = [*messages, *more[num_repeated:]]
        one = to_record(given, piece, reading, record.id, 0)
        others += [one] if isinstance(one, Record) else []
    raw = orjson.dumps({**whole, key: messages})
    both = to_record(orjson.loads(raw), raw, reading, record.id, record.start, mended)
    if isinstance(both, Broken):
        raise CorruptError(f"Pieces of {record.id} do not fit ({both.reason}); please report this.")
    both.end = record.end
    both.num_joined = len(pieces)
    both.joined_bytes = sum(map(len, pieces))
    size = sum(turn.raw_bytes for turn in repeated)
    both.left_out.append(LeftOut("repeated_answer", len(repeated), size))
    for one in others:
        both.flags |= one.flags
        both.has_plugins |= one.has_plugins
        both.refused = both.refused or one.refused
        both.ignored += one.ignored
        both.ignored += ["model"] if one.model not in (None, both.model) else []
        both.ignored += ["tools"] if one.tools not in (None, both.tools) else []
    return both


def _repeated(messages: list[JsonValue], key: str, reading: Reading) -> tuple[int, list[Turn]]:
    """How many of a piece's messages its predecessor has, an answer behind what the system says;
    and their turns."""
    turns: list[Turn] = []
    for i, message in enumerate(messages):
        one = to_record({key: [message]}, b"", reading, "", 0)
        turns += one.turns if isinstance(one, Record) else []
        if not turns or turns[-1].role != "system":
            return i + 1, turns
    return len(messages), turns


def raw_turns(raw: str) -> list[tuple[str, str]]:
    """Role and text of each message as the dump has them; none when `raw` is no conversation."""
    try:
        conversation, _ = read_record(parse(raw.encode()), Reading())
    except Unreadable:
        return []
    return [(turn.role, turn.text or turn.tool_calls or "") for turn in conversation.turns]


def convert(record: Record) -> dict[str, int]:
    """Turn page HTML into Markdown in place; counts of what each message was.

    Raises Unreadable for markup that is too long or too deep to parse.
    """
    counts: dict[str, int] = {}
    asked = ""
    for turn in record.turns:
        asked = turn.text if turn.role == "user" else asked
        by_assistant = turn.role == "assistant"
        is_html = turn.role in ("user", "assistant") and detect.decided(
            turn.text, by_assistant=by_assistant, html=record.html, asked=asked
        )
        if is_html:
            try:
                markdown = to_markdown.to_markdown(turn.text)
            except detect.HtmlRefused as error:
                raise Unreadable(error.reason, len(record.turns)) from error
            is_html = bool(markdown) or record.html != "auto" or not evidence.is_talk(turn.text)
            if is_html:
                turn.text, turn.is_page = markdown, True
        elif len(turn.text) > detect.MAX_BYTES:
            raise Unreadable("message-too-long", len(record.turns))
        name = f"{turn.role}_{'html' if is_html else 'plain'}"
        counts[name] = counts.get(name, 0) + 1
    return counts
