"""Where tasks may cut a file: the first step of `clean`.

A file is indexed in pieces that are read at the same time. A piece gives its digest and, for each
cell (`unit_bytes` of the file), where its first record starts and how many do; joined, they give
ranges that begin and end at records. What cannot be read from its middle (compressed, UTF-16,
Parquet, arrays that only brackets divide) is indexed by its first piece alone.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from apps.common.files import storage
from apps.data.read import json_spans, source
from apps.data.read.json_spans import Layout
from apps.data.units import Json, Unit

PIECE_BYTES = 32 << 20
Cell = list[int]
"""Number, offset of the first record that starts in it, records that start in it."""


def units(files: list[str], unit_bytes: int) -> list[Unit]:
    """The pieces of every file; a file that changes gets others."""
    found: list[Unit] = []
    for uri in files:
        size, stamp = source.size_and_stamp(uri)
        for start in range(0, max(1, size), PIECE_BYTES):
            end = min(size, start + PIECE_BYTES)
            args = {"uri": uri, "stamp": stamp, "size": size, "start": start, "end": end}
            args["unit_bytes"] = unit_bytes
            found.append(Unit(stage="index", name=f"{uri} bytes {start:,}-{end:,}", args=args))
    return found


def index(args: Json, folder: str) -> Json:
    """Index one piece of a file; see `join` for what comes of them."""
    head = source.read_range(args["uri"], 0, min(args["size"], json_spans.HEAD_BYTES))
    layout = json_spans.sniff(head) if source.is_plain(head) else None
    if layout is None or layout.kind == "brackets":
        return _index_whole(args, folder) if args["start"] == 0 else {"uri": args["uri"]}
    return _index_piece(args, layout)


def _index_piece(args: Json, layout: Layout) -> Json:
    start, end = args["start"], args["end"]
    first = start - min(start, 1)  # the byte that says whether a line starts with the piece
    data = source.read_range(args["uri"], first, end, json_spans.ANCHOR_BYTES)
    digest = hashlib.blake2b(memoryview(data)[start - first : end - first], digest_size=16)
    starts = json_spans.record_starts([data], layout, offset=first)
    cells = _cells((at for at in starts if start <= at < end), args["unit_bytes"])
    return {
        "uri": args["uri"],
        "data": args["uri"],
        "digest": digest.hexdigest(),
        "bytes": end - start,
        "cells": cells,
        "damage": None,
        **_described(layout),
    }


def _index_whole(args: Json, folder: str) -> Json:
    uri, unit_bytes = args["uri"], args["unit_bytes"]
    with storage.open_file(uri) as handle:
        hashed = source.Hashed(handle)
        magic = handle.read(4)
        handle.seek(0)
        if magic == source.PARQUET:
            while hashed.read(source.CHUNK_BYTES):
                pass
            ranges = _parquet_ranges(uri, unit_bytes)
            return {"uri": uri, "digest": hashed.hexdigest(), "format": "parquet", **ranges}
        decoded = source.decoder(magic, hashed)
        spool = storage.join(folder, "decoded") if decoded is not None else None
        spooled = source.Spooled(decoded or source.chunks(hashed), spool)
        chunks = iter(spooled)
        head = _head(chunks)
        layout = json_spans.sniff(head[: json_spans.HEAD_BYTES])
        starts = json_spans.record_starts(itertools.chain([head], chunks), layout)
        cells = _cells(starts, unit_bytes)
        return {
            "uri": uri,
            "data": spool or uri,
            "digest": hashed.hexdigest(),
            "bytes": spooled.num_bytes,
            "cells": cells,
            "damage": spooled.damage,
            **_described(layout),
        }


def _head(chunks: Iterator[bytes]) -> bytes:
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= json_spans.HEAD_BYTES:
            break
    return head


def _described(layout: Layout) -> Json:
    keys = [key.decode("latin-1") for key in layout.keys]
    return {"format": "json", "layout": {"kind": layout.kind, "keys": keys, "body": layout.body}}


def layout_of(described: Json) -> Layout:
    layout = described["layout"]
    keys = tuple(key.encode("latin-1") for key in layout["keys"])
    return Layout(layout["kind"], keys, layout["body"])


def _cells(starts: Iterable[int], unit_bytes: int) -> list[Cell]:
    cells: list[Cell] = []
    for at in starts:
        if cells and cells[-1][0] == at // unit_bytes:
            cells[-1][2] += 1
        else:
            cells.append([at // unit_bytes, at, 1])
    return cells


def join(pieces: list[Json]) -> list[Json]:
    """One index for each file, from its pieces in order.

    `digest` (of the file, or of its pieces' digests when there are more than one), `format`,
    `layout`, `bytes`, `head_bytes`, `damage`, and `ranges`: start, end, ordinal of the first
    record, records.
    """
    files = itertools.groupby(pieces, key=lambda piece: piece["uri"])
    return [_join_file([piece for piece in own if "digest" in piece]) for _, own in files]


def _join_file(pieces: list[Json]) -> Json:
    found: Json = {**pieces[0], "digest": _join_digests([piece["digest"] for piece in pieces])}
    if found["format"] == "parquet":
        return found
    size = sum(piece["bytes"] for piece in pieces)
    body = min(found["layout"]["body"], size)
    cells = [cell for piece in pieces for cell in piece["cells"]]
    del found["cells"]
    return {**found, "bytes": size, "head_bytes": body, "ranges": _ranges(cells, body, size)}


def _join_digests(digests: list[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b(bytes.fromhex("".join(digests)), digest_size=16).hexdigest()


def _ranges(cells: list[Cell], body: int, size: int) -> list[list[int]]:
    """From the first record of a cell to that of the next; the first range from `body` on."""
    ranges: list[list[int]] = []
    previous, ordinal = -1, 0
    for number, first, count in cells:
        if number == previous:
            ranges[-1][3] += count
        else:
            if ranges:
                ranges[-1][1] = first
            ranges.append([first if ranges else body, size, ordinal, count])
        previous, ordinal = number, ordinal + count
    return ranges or ([[body, size, 0, 0]] if size > body else [])


def _parquet_ranges(uri: str, unit_bytes: int) -> dict[str, Any]:
    """Ranges of row groups: first and last group, first ordinal, rows."""
    try:
        with storage.open_file(uri) as handle:
            metadata = pq.ParquetFile(handle).metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        return {"bytes": 0, "head_bytes": 0, "ranges": [], "damage": " ".join(str(error).split())}
    ranges: list[list[int]] = []
    start = first_ordinal = ordinal = size = 0
    for i, group in enumerate(groups):
        if size and size + group.total_byte_size > unit_bytes:
            ranges.append([start, i, first_ordinal, ordinal - first_ordinal])
            start, first_ordinal, size = i, ordinal, 0
        size += group.total_byte_size
        ordinal += group.num_rows
    if groups:
        ranges.append([start, len(groups), first_ordinal, ordinal - first_ordinal])
    return {"bytes": 0, "head_bytes": 0, "ranges": ranges, "damage": None}
