"""Records of a byte range: parsed one by one, or quarantined one by one with the reason."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from apps.data.html import detect, to_markdown
from apps.data.read import json_spans
from apps.data.read.json_spans import Separation

MAX_QUARANTINED_BYTES = 1 << 20
"""More of a record's bytes than this are not copied; its range still says where they lie."""
_AROUND = b" \t\r\n,"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_CONTINUED = 64
"""Objects inside a record that open with the records' key; the head of a dump has none such."""
_ROLES = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "assistant", "model"), "assistant"),
}
_LIST_KEYS = ("conversations", "messages", "conversation", "items")


@dataclass(slots=True)
class Turn:
    """A message on its way through the rules."""

    role: str
    text: str
    raw_bytes: int
    """UTF-8 bytes of the value it came from."""
    num_raw: int = 1
    """How many input messages it holds: more than one after a merge."""


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


@dataclass(slots=True)
class Broken:
    """A record that could not be read. `raw` may be cut; the span [start, end) is the whole."""

    start: int
    end: int
    reason: str
    raw: bytes
    num_messages: int = 0


class Unreadable(ValueError):
    """Why a parsed value is not a conversation."""

    def __init__(self, reason: str, num_messages: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.num_messages = num_messages


def read_json(
    data: bytes, separation: Separation, *, offset: int, ordinal: int, prefix: str, unread: int = 0
) -> Iterator[Record | Broken]:
    """Every record of a range that starts at a record. Ids are `<prefix>-<ordinal>`.

    `unread` is how many bytes of the range's last record `data` lacks, because it is too long.

    A span that does not parse goes on when an object inside its record opened with the records'
    key. Else it is searched for whole values that lie side by side in it, as when a comma or
    bracket is missing or a record opens with another key than its neighbours.
    """
    spans = json_spans.spans_of(data, separation)
    if spans and separation.kind == "anchors" and data[: spans[0][0]].strip(_AROUND):
        yield from _recovered(data[: spans[0][0]], f"{prefix}-{ordinal:08d}.0", offset)
    stop = 0
    for i, (start, end) in enumerate(spans):
        if i < stop:
            continue
        record_id = f"{prefix}-{ordinal + i:08d}"
        beyond = unread if i == len(spans) - 1 else 0
        if end - start + beyond > json_spans.MAX_RECORD_BYTES:
            raw = data[start : start + MAX_QUARANTINED_BYTES]
            yield Broken(offset + start, offset + end + beyond, "record-too-long", raw)
            continue
        raw = data[start:end].strip(_AROUND)
        if not raw:
            continue
        value = _parse(raw)
        if value is None and separation.kind == "anchors":
            value, raw, stop = _continued(data, spans, i)
        if _holds_conversations(value):
            yield from _recovered(raw[1:], record_id, offset + data.index(raw, start) + 1)
        elif value is not None:
            at = offset + data.index(raw, start)
            yield to_record(value, raw, record_id, at)
        else:
            yield from _recovered(data[start:end], record_id, offset + start)


def _continued(data: bytes, spans: list[tuple[int, int]], i: int) -> tuple[Any, bytes, int]:
    """The value of span `i` and those after it, its bytes, and the first span beyond it."""
    start = spans[i][0]
    for stop in range(i + 2, min(i + 2 + _MAX_CONTINUED, len(spans) + 1)):
        raw = data[start : spans[stop - 1][1]].strip(_AROUND)
        if stop == len(spans):
            raw = raw[: next(json_spans.elements(raw))[1]]  # what closes the array is no part of it
        if (value := _parse(raw)) is not None:
            return value, raw, stop
        if (
            _is_conversation(data[slice(*spans[stop - 1])])
            or len(raw) > json_spans.MAX_RECORD_BYTES
        ):
            break
    return None, b"", i


def _holds_conversations(value: Any) -> bool:
    """Whether a value is an array of records, as where several dumps were put in one file."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and any(isinstance(first.get(key), list) for key in _LIST_KEYS)


def _is_conversation(data: bytes) -> bool:
    try:
        return bool(_messages(_parse(data.strip(_AROUND))))
    except Unreadable:
        return False


def _parse(raw: bytes) -> Any:
    """None when `raw` is no JSON value (or is null)."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _recovered(data: bytes, record_id: str, offset: int) -> Iterator[Record | Broken]:
    found = 0
    for start, end, closed in json_spans.elements(data):
        raw = data[start:end].rstrip(b" \t\r\n,")
        value = _parse(raw)
        if raw == _BYTE_ORDER_MARK:
            continue
        if value is None:
            reason = "bad-json" if closed else "truncated"
            yield Broken(offset + start, offset + start + len(raw), reason, cut(raw))
            continue
        name = record_id if found == 0 else f"{record_id}.{found}"
        found += 1
        yield to_record(value, raw, name, offset + start)


def cut(raw: bytes) -> bytes:
    return raw[:MAX_QUARANTINED_BYTES]


def to_record(value: Any, raw: bytes, record_id: str, start: int) -> Record | Broken:
    """A parsed value whose bytes are `raw`."""
    end = start + len(raw)
    try:
        record = conversation(value, record_id, raw)
    except Unreadable as error:
        return Broken(start, end, error.reason, cut(raw), error.num_messages)
    record.start, record.end = start, end
    return record


def conversation(value: Any, record_id: str, raw: bytes) -> Record:
    """A parsed value as a record, HTML still in place. Raises Unreadable."""
    if isinstance(value, list):
        value = {"conversations": value}
    messages = _messages(value)
    turns = [_turn(message, len(messages)) for message in messages]
    source_id = value.get("id") or value.get("conversation_id") or value.get("conversation_hash")
    system = value.get("system")
    if isinstance(system, str) and system and not (turns and turns[0].role == "system"):
        turns.insert(0, Turn("system", system, len(system.encode())))
    model = value.get("model")
    return Record(
        id=record_id,
        source_id=source_id
        if isinstance(source_id, str)
        else ""
        if source_id is None
        else str(source_id),
        start=0,
        end=0,
        raw=raw,
        turns=turns,
        model=model if isinstance(model, str) and model else None,
        has_plugins=bool(value.get("plugins")),
    )


def _messages(value: Any) -> list[Any]:
    if not isinstance(value, dict):
        raise Unreadable("not-an-object")
    for key in _LIST_KEYS:
        messages = value.get(key)
        if isinstance(messages, str):
            messages = _parse(messages.encode())
        if isinstance(messages, list):
            return messages
    raise Unreadable("no-messages")


def _turn(message: Any, num_messages: int) -> Turn:
    if not isinstance(message, dict):
        raise Unreadable("bad-message", num_messages)
    name, text = _said(message)
    if not isinstance(text, str):
        raise Unreadable("bad-message", num_messages)
    role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        raise Unreadable("unknown-role", num_messages)
    return Turn(role, text, len(text) if text.isascii() else len(text.encode()))


def _said(message: dict[str, Any]) -> tuple[Any, Any]:
    """Who and what; a Parquet of mixed dumps has every name of both, most of them null."""
    name = message.get("from")
    text = message.get("value")
    if name is None:
        name = message.get("role")
    if text is None:
        text = message.get("content")
        if text is None:
            text = message.get("text")
    return name, text


def raw_turns(raw: str) -> list[tuple[str, str]]:
    """Role and text of each message as the dump has them; none when `raw` is no conversation."""
    value = _parse(raw.encode())
    try:
        messages = _messages({"conversations": value} if isinstance(value, list) else value)
    except Unreadable:
        return []
    said = [_said(message) for message in messages if isinstance(message, dict)]
    return [(str(name), str(text)) for name, text in said]


def convert(record: Record) -> dict[str, int]:
    """Turn page HTML into Markdown in place; counts of what each message was.

    Raises Unreadable for markup that is too long or too deep to parse.
    """
    counts: dict[str, int] = {}
    for turn in record.turns:
        by_assistant = turn.role == "assistant"
        is_html = turn.role != "system" and detect.is_html(turn.text, by_assistant=by_assistant)
        if is_html:
            try:
                turn.text = to_markdown.to_markdown(turn.text)
            except detect.HtmlRefused as error:
                raise Unreadable(error.reason, len(record.turns)) from error
        elif len(turn.text) > detect.MAX_BYTES:
            raise Unreadable("message-too-long", len(record.turns))
        name = f"{turn.role}_{'html' if is_html else 'plain'}"
        counts[name] = counts.get(name, 0) + 1
    return counts
