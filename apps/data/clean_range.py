"""One byte range of a dump through reading, conversion and rules: the unit of `clean`.

<folder>/kept.parquet        conversations that every rule kept, in input order
<folder>/keys.parquet        what the search for duplicates needs of each, row by row
<folder>/dropped.parquet     the others, with the rule
<folder>/quarantine.parquet  what could not be read, with the reason
<folder>/samples.json        a few of each, raw and clean, for the report
"""

# pyarrow carries no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from apps.common.errors import CriaError
from apps.common.files import schema, storage
from apps.data.config import MAX_UNIT_BYTES
from apps.data.duplicates import keys
from apps.data.duplicates.keys import Keys
from apps.data.ledger import Ledger, add_to
from apps.data.read import json_spans, parquet, records, source
from apps.data.read.chains import Join, RangeLinks, Span, links_of
from apps.data.read.index import Format
from apps.data.read.json_spans import Separation
from apps.data.read.reader import Reading
from apps.data.read.record.layout import Turn, Unreadable
from apps.data.read.record.parse import without_halves
from apps.data.read.records import Broken, Record
from apps.data.rules.profiles import Rules
from apps.data.rules.rules import RULES
from apps.data.rules.scores import score
from apps.data.rules.verdict import Drop
from apps.data.write import tables

SAMPLES_PER_RULE = 3
SAMPLE_CHARS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeArgs:
    """Bytes or row groups [start, end) of a file; see `index.join` for where they come from."""

    uri: str
    data: str
    digest: str
    format: Format
    separation: Separation | None
    start: int
    end: int
    ordinal: int
    prefix: str
    """of the records' ids"""
    reading: Reading
    joins: tuple[Join, ...] = ()
    """records that go on in others"""
    joined: tuple[str, ...] = ()
    """ids of the records that are parts of others, and are read with them"""
    continuations: tuple[str, ...] = ()
    """ids of the records that begin with an answer, and whose predecessor is not there"""
    rules: Rules


@dataclass(frozen=True, slots=True)
class KeptRow:
    """The columns of schema.CONVERSATIONS."""

    id: str
    source_id: str
    messages: list[dict[str, str | float]]
    model: str | None
    language: str | None
    scores: list[tuple[str, float]]
    tools: str | None


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """The columns of schema.DROPPED."""

    id: str
    source_id: str
    rule: str
    detail: str
    record: str


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """The columns of schema.QUARANTINE."""

    source: str
    start_byte: int
    reason: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """A record for the report, as it came and as it went."""

    order: str
    """a digest of its id: those with the smallest are shown"""
    id: str
    detail: str
    raw: str
    messages: list[dict[str, str]]


@dataclass(slots=True)
class Output:
    kept: list[KeptRow] = field(default_factory=list[KeptRow])
    keys: list[Keys] = field(default_factory=list[Keys])
    dropped: list[DroppedRow] = field(default_factory=list[DroppedRow])
    quarantined: list[QuarantinedRow] = field(default_factory=list[QuarantinedRow])
    samples: dict[str, list[Sample]] = field(default_factory=dict[str, list[Sample]])
    ledger: Ledger = field(default_factory=Ledger)


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanedRange:
    """The manifest: what lies in `folder`."""

    folder: str
    ledger: Ledger
    kept: int
    """conversations"""
    dropped_bytes: int
    """of their table in memory; 0 when there are none"""
    quarantined_bytes: int


def clean_unit(args: RangeArgs, folder: str) -> CleanedRange:
    """Clean one range."""
    return _write(clean_range(args), args.rules, folder)


def clean_range(args: RangeArgs) -> Output:
    """What a range holds, in memory; its ledger adds up."""
    output = Output()
    span_bytes = 0
    joins = {join.id: join.pieces for join in args.joins}
    joined, continuations = frozenset(args.joined), frozenset(args.continuations)
    for record in read_range(args):
        span_bytes += record.end - record.start
        try:
            if isinstance(record, Record):
                if record.id in joined:
                    continue
                if record.id in joins:
                    record = _with_pieces(record, joins[record.id], args)
                record.is_continuation = record.id in continuations
            _take(record, args.uri, args.rules, output)
        except Exception as error:
            raise CriaError(
                f"{args.uri}, {_place(record, args.format)}: "
                f"{type(error).__name__}: {error}; please report this."
            ) from error
    if args.format == "json":
        output.ledger.frame(args.end - args.start - span_bytes)
    output.ledger.check()
    return output


def _place(record: Record | Broken, file_format: str) -> str:
    if file_format == "parquet" and isinstance(record, Record):
        return f"record {record.id}, a row's number after its file's digest"
    return f"record at bytes {record.start:,}-{record.end:,}"


def _with_pieces(record: Record, pieces: Sequence[Span], args: RangeArgs) -> Record:
    spans = [source.read_range(piece.data, piece.start, piece.end) for piece in pieces]
    return records.joined(record, spans, args.reading)


def find_links(args: RangeArgs, folder: str) -> RangeLinks:
    """The pieces of conversations in a range, before it is cleaned."""
    del folder
    return links_of(read_range(args), args.data)


def read_range(args: RangeArgs) -> Iterator[Record | Broken]:
    start, end, prefix = args.start, args.end, args.prefix
    if args.separation is None:
        yield from parquet.read(
            args.data, start, end, args.reading, ordinal=args.ordinal, prefix=prefix
        )
        return
    read_to = min(end, start + MAX_UNIT_BYTES + json_spans.MAX_RECORD_BYTES)
    yield from records.read_json(
        source.read_range(args.data, start, read_to),
        args.separation,
        args.reading,
        offset=start,
        ordinal=args.ordinal,
        prefix=prefix,
        unread=end - read_to,
    )


def _take(record: Record | Broken, uri: str, rules: Rules, output: Output) -> None:
    if isinstance(record, Broken):
        _quarantine(record, uri, output)
        return
    span_bytes = record.end - record.start + record.joined_bytes
    output.ledger.join(record.num_joined)
    raw_turns = list(record.turns)
    try:
        forms = records.convert(record)
    except Unreadable as error:
        cut = record.raw[: records.MAX_QUARANTINED_BYTES]
        broken = Broken(record.start, record.end, error.reason, cut, error.num_messages)
        _quarantine(broken, uri, output)
        return
    for form, amount in forms.items():
        add_to(output.ledger.forms, form, amount)
    _count_source(record, output.ledger)
    dropped = record.refused or _apply(record, rules, output.ledger)
    num_bytes, messages = _size(record.turns)
    left_out_bytes = sum(left.bytes for left in record.left_out)
    framing = span_bytes - _size(raw_turns)[0] - left_out_bytes
    if dropped is not None:
        rule, detail = dropped
        output.ledger.drop(rule, messages=messages, num_bytes=num_bytes, framing=framing)
        row = DroppedRow(record.id, record.source_id, rule, detail, _text_of(record.raw))
        output.dropped.append(row)
        _sample(output, rule, record, detail)
        return
    output.ledger.keep(messages=messages, num_bytes=num_bytes, framing=framing)
    output.kept.append(_row(record))
    output.keys.append(keys.of(record, rules, messages=messages, num_bytes=num_bytes))
    _sample(output, "kept", record, "")


def _text_of(raw: bytes) -> str:
    """What was read: halves of surrogate pairs may lie in it as characters of their own."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return without_halves(raw.decode("utf-8", "surrogatepass"))


def _count_source(record: Record, ledger: Ledger) -> None:
    """What the record was, and what it says that the output does not carry."""
    add_to(ledger.layouts, record.layout, 1)
    ledger.continuations += record.is_continuation
    for name, amount in record.repaired.items():
        add_to(ledger.repairs, name, amount)
    for name in sorted(set(record.ignored)):
        add_to(ledger.ignored, name, 1)
    for left in record.left_out:
        ledger.trim(left.reason, messages=left.messages, num_bytes=left.bytes)


def _apply(record: Record, rules: Rules, ledger: Ledger) -> tuple[str, str] | None:
    """Run the rules over a record in place; (rule, detail) of the one that drops it."""
    score(record, rules)
    for name, rule in RULES.items():
        verdict = rule(record, rules)
        if verdict is None:
            continue
        if isinstance(verdict, Drop):
            return name, verdict.detail
        _replace_turns(record, verdict, name, ledger)
        if not _has_turns(record):
            break
    return None if _has_turns(record) else ("empty", "no turns left")


def _has_turns(record: Record) -> bool:
    """Whether anyone but the system says something."""
    return any(turn.role != "system" for turn in record.turns)


def _replace_turns(record: Record, turns: list[Turn], rule: str, ledger: Ledger) -> None:
    before, after = _size(record.turns), _size(turns)
    if before != after:
        trimmed_bytes, trimmed_messages = before[0] - after[0], before[1] - after[1]
        ledger.trim(rule, messages=trimmed_messages, num_bytes=trimmed_bytes)
    old = {id(turn) for turn in record.turns}
    if changed := sum(id(turn) not in old for turn in turns):
        add_to(ledger.repairs, rule, changed)
    record.turns = turns


def _size(turns: list[Turn]) -> tuple[int, int]:
    """Raw bytes and input messages."""
    return sum(turn.raw_bytes for turn in turns), sum(turn.num_raw for turn in turns)


def _quarantine(broken: Broken, uri: str, output: Output) -> None:
    num_bytes = broken.end - broken.start
    output.ledger.quarantine(broken.reason, messages=broken.num_messages, num_bytes=num_bytes)
    output.quarantined.append(QuarantinedRow(uri, broken.start, broken.reason, broken.raw))


def _row(record: Record) -> KeptRow:
    return KeptRow(
        id=record.id,
        source_id=record.source_id,
        messages=list(map(_message, record.turns)),
        model=record.model,
        language=record.language,
        scores=sorted((record.scores | _marks(record)).items()),
        tools=record.tools,
    )


def _marks(record: Record) -> dict[str, float]:
    return {"continuation": 1.0} if record.is_continuation else {}


def _message(turn: Turn) -> dict[str, str | float]:
    """Only what it has: the other columns are null."""
    message: dict[str, str | float] = {"role": turn.role, "content": turn.text}
    if turn.role == "assistant" and not turn.is_learned:
        message["weight"] = 0.0
    if turn.tool_calls is not None:
        message["tool_calls"] = turn.tool_calls
    if turn.tool_call_id is not None:
        message["tool_call_id"] = turn.tool_call_id
    if turn.name is not None:
        message["name"] = turn.name
    return message


def _sample(output: Output, rule: str, record: Record, detail: str) -> None:
    """Keep the records with the smallest digests of their ids: the same ones on every run."""
    kept = output.samples.setdefault(rule, [])
    order = hashlib.blake2b(record.id.encode(), digest_size=8).hexdigest()
    if len(kept) >= SAMPLES_PER_RULE and order >= kept[-1].order:
        return
    sample = Sample(
        order=order,
        id=record.id,
        detail=detail,
        raw=record.raw[:SAMPLE_CHARS].decode("utf-8", "ignore"),
        messages=[
            {"role": turn.role, "content": _shown(turn)[:SAMPLE_CHARS]} for turn in record.turns[:8]
        ],
    )
    kept.append(sample)
    kept.sort(key=lambda item: item.order)
    del kept[SAMPLES_PER_RULE:]


def _shown(turn: Turn) -> str:
    """What it says, and what it calls."""
    return "\n\n".join(filter(None, (turn.text, turn.tool_calls)))


def _write(output: Output, rules: Rules, folder: str) -> CleanedRange:
    if output.keys:
        table = keys.table_of(output.keys, rules)
        tables.write(storage.join(folder, "keys.parquet"), [table], table.schema, lasting=False)
    _write_rows(output.kept, folder, "kept", schema.CONVERSATIONS)
    samples = {rule: list(map(asdict, rows)) for rule, rows in output.samples.items()}
    storage.write_json(storage.join(folder, "samples.json"), samples)
    return CleanedRange(
        folder=folder,
        ledger=output.ledger,
        kept=len(output.kept),
        dropped_bytes=_write_rows(output.dropped, folder, "dropped", schema.DROPPED),
        quarantined_bytes=_write_rows(output.quarantined, folder, "quarantine", schema.QUARANTINE),
    )


def _write_rows(rows: Sequence[object], folder: str, name: str, kind: pa.Schema) -> int:
    """<folder>/<name>.parquet, when there are rows; bytes of the table in memory."""
    if not rows:
        return 0
    table = tables.table_of(rows, kind)
    tables.write(storage.join(folder, f"{name}.parquet"), [table], kind, lasting=False)
    return table.nbytes
