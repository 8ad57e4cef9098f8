"""One byte range of a dump through reading, conversion and rules: the unit of `clean`.

<folder>/kept.parquet        conversations that every rule kept, in input order
<folder>/keys.parquet        what the search for duplicates needs of each, row by row
<folder>/dropped.parquet     the others, with the rule
<folder>/quarantine.parquet  what could not be read, with the reason
<folder>/samples.json        a few of each, raw and clean, for the report
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from apps.common.errors import CriaError
from apps.common.files import config as configs
from apps.common.files import schema, storage
from apps.data.config import MAX_UNIT_BYTES, Rules
from apps.data.ledger import Ledger
from apps.data.read import index, json_spans, parquet, records, source
from apps.data.read.records import Broken, Record, Turn, Unreadable
from apps.data.rules import duplicates
from apps.data.rules.rules import RULES, Drop, score
from apps.data.units import Json
from apps.data.write import tables

SAMPLES_PER_RULE = 3
SAMPLE_CHARS = 20_000


@dataclass(slots=True)
class Output:
    with_signature: bool
    kept: list[Json] = field(default_factory=list)
    keys: list[Json] = field(default_factory=list)
    dropped: list[Json] = field(default_factory=list)
    quarantined: list[Json] = field(default_factory=list)
    samples: dict[str, list[Json]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)


def clean_unit(args: Json, folder: str) -> Json:
    """Clean one range; see `index.join` for where the arguments come from."""
    return _write(clean_range(args), folder)


def clean_range(args: Json) -> Output:
    """What a range holds, in memory; its ledger adds up."""
    rules = configs.from_dict(Rules, args["rules"])
    output = Output(with_signature=bool(rules.near_duplicate))
    span_bytes = 0
    for found in _read(args):
        span_bytes += found.end - found.start
        try:
            _take(found, args["uri"], rules, output)
        except Exception as error:
            raise CriaError(
                f"{args['uri']}, {_place(found, args['format'])}: "
                f"{type(error).__name__}: {error}; please report this."
            ) from error
    if args["format"] == "json":
        output.ledger.frame(args["end"] - args["start"] - span_bytes)
    output.ledger.check()
    return output


def _place(found: Record | Broken, file_format: str) -> str:
    if file_format == "parquet" and isinstance(found, Record):
        return f"record {found.id}, a row's number after its file's digest"
    return f"record at bytes {found.start:,}-{found.end:,}"


def _read(args: Json) -> Iterator[Record | Broken]:
    first, last, ordinal = args["start"], args["end"], args["ordinal"]
    if args["format"] == "parquet":
        yield from parquet.read(args["data"], first, last, ordinal=ordinal, prefix=args["prefix"])
        return
    read_to = min(last, first + MAX_UNIT_BYTES + json_spans.MAX_RECORD_BYTES)
    data = source.read_range(args["data"], first, read_to)
    place = {"offset": first, "ordinal": ordinal, "prefix": args["prefix"]}
    yield from records.read_json(data, index.layout_of(args), unread=last - read_to, **place)


def _take(found: Record | Broken, uri: str, rules: Rules, output: Output) -> None:
    span_bytes = found.end - found.start
    if isinstance(found, Broken):
        _quarantine(found, uri, output)
        return
    raw_turns = list(found.turns)
    try:
        output.ledger.forms.update(records.convert(found))
    except Unreadable as error:
        cut = found.raw[: records.MAX_QUARANTINED_BYTES]
        broken = Broken(found.start, found.end, error.reason, cut, error.num_messages)
        _quarantine(broken, uri, output)
        return
    dropped = _apply(found, rules, output.ledger)
    num_bytes, messages = _size(found.turns)
    framing = span_bytes - _size(raw_turns)[0]
    if dropped is not None:
        rule, detail = dropped
        output.ledger.drop(rule, messages=messages, num_bytes=num_bytes, framing=framing)
        row = {"id": found.id, "source_id": found.source_id, "rule": rule, "detail": detail}
        output.dropped.append({**row, "record": found.raw.decode()})
        _sample(output, rule, found, detail)
        return
    output.ledger.keep(messages=messages, num_bytes=num_bytes, framing=framing)
    output.kept.append(_row(found))
    sizes = {"messages": messages, "bytes": num_bytes}
    output.keys.append(duplicates.keys(found, with_signature=output.with_signature) | sizes)
    _sample(output, "kept", found, "")


def _apply(record: Record, rules: Rules, ledger: Ledger) -> tuple[str, str] | None:
    """Run the rules over a record in place; (rule, detail) of the one that drops it."""
    score(record, rules)
    for name, rule in RULES:
        verdict = rule(record, rules)
        if verdict is None:
            continue
        if isinstance(verdict, Drop):
            return name, verdict.detail
        _replace_turns(record, verdict, name, ledger)
    if not any(turn.role != "system" for turn in record.turns):
        return "empty", "no turns left"
    return None


def _replace_turns(record: Record, turns: list[Turn], rule: str, ledger: Ledger) -> None:
    before, after = _size(record.turns), _size(turns)
    if before != after:
        trimmed_bytes, trimmed_messages = before[0] - after[0], before[1] - after[1]
        ledger.trim(rule, messages=trimmed_messages, num_bytes=trimmed_bytes)
    old = {id(turn) for turn in record.turns}
    if changed := sum(id(turn) not in old for turn in turns):
        ledger.repairs[rule] += changed
    record.turns = turns


def _size(turns: list[Turn]) -> tuple[int, int]:
    """Raw bytes and input messages."""
    return sum(turn.raw_bytes for turn in turns), sum(turn.num_raw for turn in turns)


def _quarantine(broken: Broken, uri: str, output: Output) -> None:
    num_bytes = broken.end - broken.start
    output.ledger.quarantine(broken.reason, messages=broken.num_messages, num_bytes=num_bytes)
    row = {"source": uri, "start_byte": broken.start, "reason": broken.reason, "raw": broken.raw}
    output.quarantined.append(row)


def _row(record: Record) -> Json:
    return {
        "id": record.id,
        "source_id": record.source_id,
        "messages": [{"role": turn.role, "content": turn.text} for turn in record.turns],
        "model": record.model,
        "language": record.language,
        "scores": sorted(record.scores.items()),
    }


def _sample(output: Output, rule: str, record: Record, detail: str) -> None:
    """Keep the records with the smallest digests of their ids: the same ones on every run."""
    kept = output.samples.setdefault(rule, [])
    order = hashlib.blake2b(record.id.encode(), digest_size=8).hexdigest()
    if len(kept) >= SAMPLES_PER_RULE and order >= kept[-1]["order"]:
        return
    sample = {
        "order": order,
        "id": record.id,
        "detail": detail,
        "raw": record.raw[:SAMPLE_CHARS].decode("utf-8", "ignore"),
        "messages": [
            {"role": turn.role, "content": turn.text[:SAMPLE_CHARS]} for turn in record.turns[:8]
        ],
    }
    kept.append(sample)
    kept.sort(key=lambda item: item["order"])
    del kept[SAMPLES_PER_RULE:]


def _write(output: Output, folder: str) -> Json:
    manifest: dict[str, Any] = {"folder": folder, "ledger": output.ledger.to_json()}
    for name, rows, kind in (
        ("kept", output.kept, schema.CONVERSATIONS),
        ("keys", output.keys, duplicates.schema_of(with_signature=output.with_signature)),
        ("dropped", output.dropped, schema.DROPPED),
        ("quarantine", output.quarantined, schema.QUARANTINE),
    ):
        manifest[name] = len(rows)
        if rows:
            table = pa.Table.from_pylist(rows, schema=kind)
            manifest[f"{name}_bytes"] = table.nbytes
            tables.write(storage.join(folder, f"{name}.parquet"), [table], kind, level=1)
    storage.write_json(storage.join(folder, "samples.json"), output.samples)
    return manifest
