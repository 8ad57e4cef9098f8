"""Input files: found, recognised, and cut into byte ranges that tasks read on their own.

A file is read once from end to end to index it: its digest, and the offsets of records at which
ranges of about `unit_bytes` are cut. Compressed and UTF-16 files are decoded on the way to a spool
that is then read in ranges. Parquet files are cut at row groups.
"""

import codecs
import hashlib
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from apps.common import storage
from apps.common.errors import InputError, NotFoundError
from apps.data import jsonspans
from apps.data.units import Json, Unit

CHUNK_BYTES = 8 << 20
_PACKED_BYTES = 256 << 10
"""Compressed bytes decoded at a time: bounds what a file of nothing but zeros unpacks to."""
_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_DAMAGE = (zlib.error, EOFError, zstandard.ZstdError, UnicodeDecodeError)


def find(inputs: tuple[str, ...]) -> list[str]:
    """The files that paths, folders and globs name, sorted within each. Raises NotFoundError."""
    files: dict[str, None] = {}
    for given in inputs:
        found = _expand(storage.absolute(given))
        if not found:
            raise NotFoundError(
                f"{given} names no file; expected a JSON, JSONL, .gz, .zst or Parquet file, "
                "a folder of them, or a glob such as 'dumps/*.json'."
            )
        files.update(dict.fromkeys(found))
    return list(files)


def _expand(uri: str) -> list[str]:
    fs, path = storage.filesystem(uri)
    if any(mark in path for mark in "*?["):
        if storage.exists(uri):
            return [uri]
        return [_with_scheme(uri, match) for match in sorted(fs.glob(path)) if fs.isfile(match)]
    if storage.is_dir(uri):
        return [
            child
            for name in storage.list_dir(uri)
            if not name.startswith((".", "_"))
            and not storage.is_dir(child := storage.join(uri, name))
        ]
    return [uri] if storage.exists(uri) else []


def _with_scheme(pattern: str, path: str) -> str:
    return path if storage.is_local(pattern) else f"{pattern.split('://', 1)[0]}://{path}"


def index_units(files: list[str], unit_bytes: int) -> list[Unit]:
    """One unit per file; a file that changes gets another."""
    return [
        Unit(
            stage="index",
            name=uri,
            args={"uri": uri, "stamp": _stamp(uri), "unit_bytes": unit_bytes},
        )
        for uri in files
    ]


def _stamp(uri: str) -> str:
    fs, path = storage.filesystem(uri)
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{uri} does not exist; check the path.") from error
    return f"{info.get('size')}-{info.get('ETag') or info.get('mtime') or info.get('updated')}"


def index(args: Json, folder: str) -> Json:
    """Index one file. The manifest: digest, format, bytes, and the ranges with their ordinals."""
    uri = args["uri"]
    with storage.open_file(uri) as handle:
        magic = handle.read(4)
        handle.seek(0)
        hashed = _Hashed(handle)
        if magic == b"PAR1":
            while hashed.read(CHUNK_BYTES):
                pass
            ranges = _parquet_ranges(uri, args["unit_bytes"])
            return {"uri": uri, "digest": hashed.hexdigest(), "format": "parquet", **ranges}
        decoded = _decoder(magic, hashed)
        data_uri = uri if decoded is None else storage.join(folder, "decoded")
        found = _index_json(
            _Spooled(decoded or _chunks(hashed), data_uri if decoded is not None else None),
            args["unit_bytes"],
        )
        return {"uri": uri, "digest": hashed.hexdigest(), "data": data_uri, **found}


class _Hashed(io.RawIOBase):
    """A file read through its digest."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._digest = hashlib.blake2b(digest_size=16)

    def read(self, size: int = -1) -> bytes:
        data = self._handle.read(size)
        self._digest.update(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _chunks(handle: io.RawIOBase) -> Iterator[bytes]:
    while chunk := handle.read(CHUNK_BYTES):
        yield chunk


def _decoder(magic: bytes, handle: _Hashed) -> Iterator[bytes] | None:
    """The decoded bytes of a compressed or UTF-16 file; None when it can be read as it is."""
    if magic[:2] == b"\x1f\x8b":
        return _gunzipped(handle)
    if magic == b"\x28\xb5\x2f\xfd":
        reader = zstandard.ZstdDecompressor().stream_reader(
            io.BufferedReader(handle), read_across_frames=True
        )
        return _chunks(reader)  # type: ignore[arg-type]
    if magic[:2] in _UTF16:
        return _transcoded(handle, _UTF16[magic[:2]])
    return None


def _gunzipped(handle: _Hashed) -> Iterator[bytes]:
    """As gzip.GzipFile, but what comes before damage is not lost with the read that meets it."""
    member = zlib.decompressobj(wbits=31)
    data = b""
    while data or (data := handle.read(_PACKED_BYTES)):
        if member.eof:
            if not (data := data.lstrip(b"\0")):
                continue
            member = zlib.decompressobj(wbits=31)
        yield member.decompress(data)
        data = member.unused_data
    if not member.eof:
        raise EOFError("the file ends inside a gzip member")


def _transcoded(handle: _Hashed, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in _chunks(handle):
        yield decoder.decode(chunk).encode()
    decoder.decode(b"", final=True)


class _Spooled:
    """Chunks, written to `uri` on their way when one is given; `damage` is why they ended early."""

    def __init__(self, chunks: Iterator[bytes], uri: str | None) -> None:
        self._chunks = chunks
        self._uri = uri
        self.damage: str | None = None
        self.num_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        if self._uri is None:
            yield from self._counted()
            return
        with storage.atomic_file(self._uri) as spool:
            for chunk in self._counted():
                spool.write(chunk)
                yield chunk

    def _counted(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                self.num_bytes += len(chunk)
                yield chunk
        except _DAMAGE as error:
            self.damage = f"{type(error).__name__}: {error}"


def _index_json(spooled: _Spooled, unit_bytes: int) -> Json:
    chunks = iter(spooled)
    first = b""
    for chunk in chunks:
        first += chunk
        if len(first) >= jsonspans.HEAD_BYTES:
            break
    layout = jsonspans.sniff(first[: jsonspans.HEAD_BYTES])
    ranges: list[list[int]] = []  # start, end, first ordinal, records
    start, first_ordinal, ordinal = layout.body, 0, 0
    for offset in jsonspans.record_starts(_again(first, chunks), layout):
        if offset - start >= unit_bytes and ordinal > first_ordinal:
            ranges.append([start, offset, first_ordinal, ordinal - first_ordinal])
            start, first_ordinal = offset, ordinal
        ordinal += 1
    if spooled.num_bytes > start:
        ranges.append([start, spooled.num_bytes, first_ordinal, ordinal - first_ordinal])
    return {
        "format": "json",
        "layout": {
            "kind": layout.kind,
            "keys": [key.decode("latin-1") for key in layout.keys],
            "body": layout.body,
        },
        "bytes": spooled.num_bytes,
        "head_bytes": min(layout.body, spooled.num_bytes),
        "damage": spooled.damage,
        "ranges": ranges,
    }


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def layout_of(manifest: Json) -> jsonspans.Layout:
    layout = manifest["layout"]
    keys = tuple(key.encode("latin-1") for key in layout["keys"])
    return jsonspans.Layout(layout["kind"], keys, layout["body"])


def _parquet_ranges(uri: str, unit_bytes: int) -> Json:
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


def read_range(uri: str, start: int, end: int) -> bytes:
    with storage.open_file(uri) as handle:
        handle.seek(start)
        data = handle.read(end - start)
    if len(data) != end - start:
        raise InputError(
            f"{uri} ends at byte {start + len(data):,}, but had {end:,} bytes when it was indexed: "
            "it changed during the run; run the same command again."
        )
    return data
