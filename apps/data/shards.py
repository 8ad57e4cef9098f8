"""The last step of `clean`: what the ranges kept, without duplicates, as shards of even size."""

from collections.abc import Iterator

import orjson
import pyarrow as pa

from apps.common import schema, storage
from apps.data import tables
from apps.data.units import Json, Unit

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
        chars = tables.read(storage.join(folder, "keys.parquet"), ["chars"])["chars"].to_pylist()
        for row, amount in enumerate(chars):
            if not shards or (size >= shard_bytes and row not in losers):
                shards.append([])
                size = 0
            _extend(shards[-1], folder, row)
            size += 0 if row in losers else amount
    return [
        _unit("kept", i, {"pieces": pieces, "duplicates": decided["uri"], "out": out})
        for i, pieces in enumerate(shards)
    ]


def _extend(pieces: list[Piece], folder: str, row: int) -> None:
    if pieces and pieces[-1][0] == folder and pieces[-1][2] == row:
        pieces[-1] = (folder, pieces[-1][1], row + 1)
    else:
        pieces.append((folder, row, row + 1))


def aside_units(kind: str, out: str, manifests: list[Json], shard_bytes: int) -> list[Unit]:
    """Whole ranges' dropped or quarantined rows, grouped up to `shard_bytes`."""
    groups: list[list[str]] = []
    size = shard_bytes
    for manifest in manifests:
        if not manifest[kind]:
            continue
        if size >= shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(manifest["folder"])
        size += manifest[f"{kind}_bytes"]
    return [
        _unit(kind, i, {"folders": folders, "out": storage.join(out, kind)})
        for i, folders in enumerate(groups)
    ]


def _unit(kind: str, index: int, args: Json) -> Unit:
    name = f"part-{index:05d}.parquet"
    return Unit(stage="write", name=f"{kind} {name}", args={"kind": kind, "name": name, **args})


def write(args: Json, folder: str) -> Json:
    """Write one shard to its final place: the same rows give the same bytes."""
    del folder
    kind, uri = args["kind"], storage.join(args["out"], args["name"])
    if kind == "kept":
        return _write_kept(args, uri)
    kept_schema = schema.DROPPED if kind == "dropped" else schema.QUARANTINE
    found = (
        table
        for unit in args["folders"]
        for table in tables.batches(storage.join(unit, f"{kind}.parquet"))
    )
    return {"kind": kind, "name": args["name"], **tables.write(uri, found, kept_schema)}


def _write_kept(args: Json, uri: str) -> Json:
    gone = _gone(args["duplicates"], {folder for folder, _, _ in args["pieces"]})
    stay = (
        table.filter(pa.array([row not in gone.get(folder, {}) for row in rows]))
        for folder, rows, table in _rows(args["pieces"])
    )
    written = tables.write(uri, stay, schema.CONVERSATIONS)
    manifest = {"kind": "kept", "name": args["name"], **written}
    if any(folder in gone for folder, _, _ in args["pieces"]):
        aside = storage.join(args["out"], schema.DROPPED_DIR, f"duplicates-{args['name'][5:]}")
        losers = _losers(args["pieces"], gone)
        manifest["duplicates"] = tables.write(aside, losers, schema.DROPPED)
    return manifest


def _rows(pieces: list[Piece]) -> Iterator[tuple[str, range, pa.Table]]:
    """The rows of the pieces, a few at a time, with their folder and row numbers."""
    for folder, first, last in pieces:
        start = 0
        for table in tables.batches(storage.join(folder, "kept.parquet")):
            low, high = max(first, start), min(last, start + len(table))
            if low < high:
                yield folder, range(low, high), table.slice(low - start, high - low)
            start += len(table)


def _losers(pieces: list[Piece], gone: Gone) -> Iterator[pa.Table]:
    """Duplicates as dropped rows; their record is the clean conversation."""
    for folder, rows, table in _rows(pieces):
        found = [(i, row) for i, row in enumerate(rows) if row in gone.get(folder, {})]
        dropped = []
        for i, row in found:
            kept = table.slice(i, 1).to_pylist()[0]
            rule, detail = gone[folder][row]
            record = orjson.dumps({"id": kept["source_id"], "messages": kept["messages"]}).decode()
            ids = {"id": kept["id"], "source_id": kept["source_id"]}
            dropped.append({**ids, "rule": rule, "detail": detail, "record": record})
        if dropped:
            yield pa.Table.from_pylist(dropped, schema=schema.DROPPED)


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
