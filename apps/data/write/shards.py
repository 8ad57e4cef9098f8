"""The last step of `clean`: what the ranges kept, without duplicates, as shards of even size."""

from collections.abc import Iterator

import orjson
import pyarrow as pa

from apps.common.files import schema, storage
from apps.data.units import Json, Unit
from apps.data.write import tables

Piece = tuple[str, int, int]
"""A range's folder and the rows [start, end) of its table."""
Gone = dict[str, dict[int, tuple[str, str]]]
"""folder -> row -> (rule, detail)"""


def kept_units(out: str, decided: Json, shard_bytes: int) -> list[Unit]:
    """Shards cut where the text of the rows that stay has reached `shard_bytes`."""
    gone = _gone_rows(decided["uri"])
    shards: list[list[Piece]] = []
    size = 0
    for folder in decided["folders"]:
        losers = gone.get(folder, set())
        for row, amount in enumerate(_chars(folder)):
            if row in losers:
                continue
            if not shards or size >= shard_bytes:
                shards.append([])
                size = 0
            _extend(shards[-1], folder, row)
            size += amount
    args = {"duplicates": decided["uri"], "out": out}
    return [_unit("kept", i, {"pieces": pieces, **args}) for i, pieces in enumerate(shards)]


def duplicate_units(out: str, decided: Json, shard_bytes: int) -> list[Unit]:
    """Whole ranges' duplicates, grouped up to `shard_bytes` of text."""
    gone = _gone_rows(decided["uri"])
    sizes: dict[str, int] = {}
    for folder in decided["folders"]:
        if folder in gone:
            chars = _chars(folder)
            sizes[folder] = sum(chars[row] for row in gone[folder])
    args = {"duplicates": decided["uri"], "out": storage.join(out, schema.DROPPED_DIR)}
    return [
        _unit("duplicates", i, {"folders": folders, **args})
        for i, folders in enumerate(_grouped(sizes, shard_bytes))
    ]


def _chars(folder: str) -> list[int]:
    return tables.read(storage.join(folder, "keys.parquet"), ["chars"])["chars"].to_pylist()


def _extend(pieces: list[Piece], folder: str, row: int) -> None:
    """Add a row; rows between two of one range that are gone come along, to be skipped."""
    if pieces and pieces[-1][0] == folder:
        pieces[-1] = (folder, pieces[-1][1], row + 1)
    else:
        pieces.append((folder, row, row + 1))


def aside_units(kind: str, out: str, manifests: list[Json], shard_bytes: int) -> list[Unit]:
    """Whole ranges' dropped or quarantined rows, grouped up to `shard_bytes`."""
    sizes = {m["folder"]: m[f"{kind}_bytes"] for m in manifests if m[kind]}
    return [
        _unit(kind, i, {"folders": folders, "out": storage.join(out, kind)})
        for i, folders in enumerate(_grouped(sizes, shard_bytes))
    ]


def _grouped(sizes: dict[str, int], most: int) -> Iterator[list[str]]:
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


def _unit(kind: str, index: int, args: Json) -> Unit:
    prefix = "duplicates" if kind == "duplicates" else "part"
    name = f"{prefix}-{index:05d}.parquet"
    return Unit(stage="write", name=f"{kind} {name}", args={"kind": kind, "name": name, **args})


def write(args: Json, folder: str) -> Json:
    """Write one shard to its final place: the same rows give the same bytes."""
    del folder
    kind, uri = args["kind"], storage.join(args["out"], args["name"])
    found, kept_schema = {
        "kept": (_staying, schema.CONVERSATIONS),
        "duplicates": (_losers, schema.DROPPED),
        schema.DROPPED_DIR: (_aside, schema.DROPPED),
        schema.QUARANTINE_DIR: (_aside, schema.QUARANTINE),
    }[kind]
    return {"kind": kind, "name": args["name"], **tables.write(uri, found(args), kept_schema)}


def _aside(args: Json) -> Iterator[pa.Table]:
    for folder in args["folders"]:
        yield from tables.batches(storage.join(folder, f"{args['kind']}.parquet"))


def _staying(args: Json) -> Iterator[pa.Table]:
    gone = _gone(args["duplicates"], {folder for folder, _, _ in args["pieces"]})
    for folder, rows, table in _rows(args["pieces"]):
        losers = gone.get(folder, {})
        yield table.filter(pa.array([row not in losers for row in rows]))


def _rows(pieces: list[Piece]) -> Iterator[tuple[str, range, pa.Table]]:
    """The rows of the pieces, a few at a time, with their folder and row numbers."""
    for folder, first, last in pieces:
        start = 0
        for table in tables.batches(storage.join(folder, "kept.parquet")):
            low, high = max(first, start), min(last, start + len(table))
            if low < high:
                yield folder, range(low, high), table.slice(low - start, high - low)
            start += len(table)


def _losers(args: Json) -> Iterator[pa.Table]:
    """Duplicates as dropped rows; their record is the clean conversation."""
    gone = _gone(args["duplicates"], set(args["folders"]))
    for folder in args["folders"]:
        start = 0
        for table in tables.batches(storage.join(folder, "kept.parquet"), _OF_LOSERS):
            rows = [row for row in range(start, start + len(table)) if row in gone[folder]]
            found = table.take(pa.array([row - start for row in rows], pa.int64())).to_pylist()
            why = [gone[folder][row] for row in rows]
            dropped = [_dropped(*pair) for pair in zip(found, why, strict=True)]
            yield pa.Table.from_pylist(dropped, schema=schema.DROPPED)
            start += len(table)


_OF_LOSERS = ["id", "source_id", "messages"]


def _dropped(row: Json, why: tuple[str, str]) -> Json:
    rule, detail = why
    record = orjson.dumps({"id": row["source_id"], "messages": row["messages"]}).decode()
    ids = {"id": row["id"], "source_id": row["source_id"]}
    return {**ids, "rule": rule, "detail": detail, "record": record}


def _gone(uri: str, folders: set[str]) -> Gone:
    found: Gone = {}
    for table in tables.batches(uri):
        for loser in table.to_pylist():
            if loser["folder"] in folders:
                rows = found.setdefault(loser["folder"], {})
                rows[loser["row"]] = (loser["rule"], loser["detail"])
    return found


def _gone_rows(uri: str) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for table in tables.batches(uri, ["folder", "row"]):
        for loser in table.to_pylist():
            found.setdefault(loser["folder"], set()).add(loser["row"])
    return found
