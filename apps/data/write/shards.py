"""The last step of `clean`: what the ranges kept, without duplicates, as shards of even size."""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pyarrow as pa

from apps.common.files import schema, storage
from apps.data.units import Unit
from apps.data.write import tables

Kind = Literal["kept", "duplicates", "dropped", "quarantine"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows [start, end) of a range's kept conversations."""

    folder: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardArgs:
    """One file to write."""

    kind: Kind
    name: str
    out: str
    duplicates: str | None = None
    """file of the rows that repeat others (kept and duplicates only)"""
    rows: tuple[Rows, ...] = ()
    """what goes in (kept only)"""
    folders: tuple[str, ...] = ()
    """the ranges whose rows go in (the others)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A file that was written."""

    kind: Kind
    name: str
    file: tables.Written


Gone = dict[str, dict[int, tuple[str, str]]]
"""folder -> row -> (rule, detail)"""


def kept_units(
    out: str, duplicates: str, folders: Sequence[str], shard_bytes: int
) -> list[Unit[ShardArgs]]:
    """Shards cut where the text of the rows that stay has reached `shard_bytes`."""
    gone = _gone_rows(duplicates)
    shards: list[list[Rows]] = []
    size = 0
    for folder in folders:
        losers = gone.get(folder, set[int]())
        for row, amount in enumerate(_chars(folder)):
            if row in losers:
                continue
            if not shards or size >= shard_bytes:
                shards.append([])
                size = 0
            _extend(shards[-1], folder, row)
            size += amount
    return [
        _unit("kept", i, out, duplicates=duplicates, rows=tuple(rows))
        for i, rows in enumerate(shards)
    ]


def duplicate_units(
    out: str, duplicates: str, folders: Sequence[str], shard_bytes: int
) -> list[Unit[ShardArgs]]:
    """Whole ranges' duplicates, grouped up to `shard_bytes` of text."""
    gone = _gone_rows(duplicates)
    sizes: dict[str, int] = {}
    for folder in folders:
        if folder in gone:
            chars = _chars(folder)
            sizes[folder] = sum(chars[row] for row in gone[folder])
    aside = storage.join(out, schema.DROPPED_DIR)
    return [
        _unit("duplicates", i, aside, duplicates=duplicates, folders=tuple(group))
        for i, group in enumerate(_grouped(sizes, shard_bytes))
    ]


def _chars(folder: str) -> list[int]:
    return tables.read(storage.join(folder, "keys.parquet"), ["chars"])["chars"].to_pylist()


def _extend(parts: list[Rows], folder: str, row: int) -> None:
    """Add a row; rows between two of one range that are gone come along, to be skipped."""
    if parts and parts[-1].folder == folder:
        parts[-1] = Rows(folder, parts[-1].start, row + 1)
    else:
        parts.append(Rows(folder, row, row + 1))


def aside_units(
    kind: Literal["dropped", "quarantine"], out: str, sizes: Mapping[str, int], shard_bytes: int
) -> list[Unit[ShardArgs]]:
    """Whole ranges' dropped or quarantined rows, grouped up to `shard_bytes`; sizes by folder."""
    aside = storage.join(out, kind)
    return [
        _unit(kind, i, aside, folders=tuple(group))
        for i, group in enumerate(_grouped(sizes, shard_bytes))
    ]


def _grouped(sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """Neighbours, in groups that end with the one that reaches `most`."""
    group: list[str] = []
    total = 0
    for folder, size in sizes.items():
        group.append(folder)
        total += size
        if total >= most:
            yield group
            group, total = [], 0
    if group:
        yield group


def _unit(
    kind: Kind,
    index: int,
    out: str,
    *,
    duplicates: str | None = None,
    rows: tuple[Rows, ...] = (),
    folders: tuple[str, ...] = (),
) -> Unit[ShardArgs]:
    prefix = "duplicates" if kind == "duplicates" else "part"
    name = f"{prefix}-{index:05d}.parquet"
    args = ShardArgs(
        kind=kind, name=name, out=out, duplicates=duplicates, rows=rows, folders=folders
    )
    return Unit(stage="write", name=f"{kind} {name}", args=args)


def write(args: ShardArgs, folder: str) -> Shard:
    """Write one shard to its final place: the same rows give the same bytes."""
    del folder
    rows_of, kept_schema = {
        "kept": (_staying, schema.CONVERSATIONS),
        "duplicates": (_losers, schema.DROPPED),
        "dropped": (_aside, schema.DROPPED),
        "quarantine": (_aside, schema.QUARANTINE),
    }[args.kind]
    uri = storage.join(args.out, args.name)
    return Shard(kind=args.kind, name=args.name, file=tables.write(uri, rows_of(args), kept_schema))


def _aside(args: ShardArgs) -> Iterator[pa.Table]:
    for folder in args.folders:
        yield from tables.batches(storage.join(folder, f"{args.kind}.parquet"))


def _staying(args: ShardArgs) -> Iterator[pa.Table]:
    gone = _gone(args.duplicates, {part.folder for part in args.rows})
    for folder, rows, table in _rows(args.rows):
        losers = gone.get(folder, {})
        yield table.filter(pa.array([row not in losers for row in rows]))


def _rows(parts: Sequence[Rows]) -> Iterator[tuple[str, range, pa.Table]]:
    """A few rows at a time, with their folder and row numbers."""
    for part in parts:
        start = 0
        for table in tables.batches(storage.join(part.folder, "kept.parquet")):
            low, high = max(part.start, start), min(part.end, start + len(table))
            if low < high:
                yield part.folder, range(low, high), table.slice(low - start, high - low)
            start += len(table)


def _losers(args: ShardArgs) -> Iterator[pa.Table]:
    """Duplicates as dropped rows; their record is the clean conversation."""
    gone = _gone(args.duplicates, set(args.folders))
    for folder in args.folders:
        start = 0
        for table in tables.batches(storage.join(folder, "kept.parquet"), _OF_LOSERS):
            rows = [row for row in range(start, start + len(table)) if row in gone[folder]]
            taken = table.take(pa.array([row - start for row in rows], pa.int64())).to_pylist()
            why = [gone[folder][row] for row in rows]
            dropped = [_dropped(*pair) for pair in zip(taken, why, strict=True)]
            yield pa.Table.from_pylist(dropped, schema=schema.DROPPED)
            start += len(table)


_OF_LOSERS = ["id", "source_id", "messages", "model", "tools"]


def _dropped(row: dict[str, Any], why: tuple[str, str]) -> dict[str, str]:
    rule, detail = why
    messages = [
        {name: value for name, value in message.items() if value is not None}
        for message in row["messages"]
    ]
    said = {"id": row["source_id"], "messages": messages}
    said |= {name: row[name] for name in ("model", "tools") if row[name] is not None}
    record = orjson.dumps(said).decode()
    ids = {"id": row["id"], "source_id": row["source_id"]}
    return {**ids, "rule": rule, "detail": detail, "record": record}


def _gone(uri: str | None, folders: set[str]) -> Gone:
    gone: Gone = {}
    for table in tables.batches(uri) if uri else ():
        for loser in table.to_pylist():
            if loser["folder"] in folders:
                rows = gone.setdefault(loser["folder"], {})
                rows[loser["row"]] = (loser["rule"], loser["detail"])
    return gone


def _gone_rows(uri: str) -> dict[str, set[int]]:
    rows: dict[str, set[int]] = {}
    for table in tables.batches(uri, ["folder", "row"]):
        for loser in table.to_pylist():
            rows.setdefault(loser["folder"], set()).add(loser["row"])
    return rows
