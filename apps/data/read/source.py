"""Input files: found, recognised, decoded to a spool where they are packed, and read in ranges."""

import codecs
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import zstandard

from apps.common.errors import InputError, NotFoundError
from apps.common.files import storage

CHUNK_BYTES = 8 << 20
_PACKED_BYTES = 256 << 10
_PACKED_ZSTD_BYTES = 1 << 10
"""Compressed bytes decoded at a time: bounds what a file of nothing but zeros unpacks to."""
_UNPACKED_BYTES = 1 << 20
"""Decoded bytes passed on at a time, or more."""
PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60)))
"""A frame, or a frame to skip, with which parallel compressors begin (RFC 8878)."""
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
    if any(mark in uri for mark in "*?["):
        return [uri] if storage.exists(uri) else storage.glob(uri)
    if storage.is_dir(uri):
        names = [name for name in storage.list_dir(uri) if not name.startswith((".", "_"))]
        if storage.COMMIT_NAME in names:  # of `clean`: what lies beside the shards is about them
            names = [name for name in names if name.endswith(".parquet")]
        children = [storage.join(uri, name) for name in names]
        return [child for child in children if not storage.is_dir(child)]
    return [uri] if storage.exists(uri) else []


def size_and_stamp(uri: str) -> tuple[int, str]:
    """Bytes of a file, and what changes when it does. Raises NotFoundError."""
    fs, path = storage.filesystem(uri)
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{uri} does not exist; check the path.") from error
    stamp = f"{info.get('size')}-{info.get('ETag') or info.get('mtime') or info.get('updated')}"
    return int(info.get("size") or 0), stamp


class Hashed(io.RawIOBase):
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


def chunks(handle: io.RawIOBase) -> Iterator[bytes]:
    while chunk := handle.read(CHUNK_BYTES):
        yield chunk


def is_plain(head: bytes) -> bool:
    """Whether a file can be read from its middle: no archive, no UTF-16, no Parquet."""
    return not head.startswith((PARQUET, _GZIP, *_ZSTD, *_UTF16))


def decoder(magic: bytes, handle: Hashed) -> Iterator[bytes] | None:
    """The decoded bytes of a compressed or UTF-16 file; None when it can be read as it is."""
    if magic[:2] == _GZIP:
        return _in_chunks(_unpacked(handle, lambda: zlib.decompressobj(wbits=31), _PACKED_BYTES))
    if magic in _ZSTD:
        buffered = io.BufferedReader(handle, _PACKED_BYTES)
        zstd = zstandard.ZstdDecompressor()
        return _in_chunks(_unpacked(buffered, zstd.decompressobj, _PACKED_ZSTD_BYTES))
    if magic[:2] in _UTF16:
        return _transcoded(handle, _UTF16[magic[:2]])
    return None


def _unpacked(
    handle: io.BufferedIOBase | io.RawIOBase, new_member: Callable[[], Any], packed_bytes: int
) -> Iterator[bytes]:
    """One gzip member or zstd frame after another; raises one of _DAMAGE where they break off."""
    member = new_member()
    data = b""
    while data or (data := handle.read(packed_bytes)):
        if member.eof:
            if not (data := data.lstrip(b"\0")):
                continue
            member = new_member()
        yield member.decompress(data)
        data = member.unused_data
    if not member.eof:
        raise EOFError("the file ends inside a compressed member")


def _in_chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Few large chunks instead of many small ones; what comes before damage is not lost with it."""
    held: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size >= _UNPACKED_BYTES:
                yield b"".join(held)
                held, size = [], 0
    except _DAMAGE:
        yield b"".join(held)
        raise
    yield b"".join(held)


def _transcoded(handle: Hashed, encoding: str) -> Iterator[bytes]:
    """UTF-8; half a surrogate pair stays one, which breaks its own record only."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    for chunk in chunks(handle):
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    decoder.decode(b"", final=True)


class Spooled:
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


def read_range(uri: str, start: int, end: int, beyond: int = 0) -> bytes:
    """The bytes of a range, and as many of the next `beyond` as there are."""
    data = storage.read_range(uri, start, end + beyond)
    if len(data) < end - start:
        raise InputError(
            f"{uri} ends at byte {start + len(data):,}, but had {end:,} bytes when it was indexed: "
            "it changed during the run; run the same command again."
        )
    return data
