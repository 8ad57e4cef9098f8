"""Input files: recognised, decoded to a spool where they are packed, and read in ranges."""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import codecs
import csv
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import zstandard

from apps.common.errors import InputError
from apps.common.files import storage
from apps.data.read import encoding

CHUNK_BYTES = 8 << 20
_PACKED_BYTES = 256 << 10
_PACKED_ZSTD_BYTES = 1 << 10
"""Compressed bytes decoded at a time: bounds what a file of nothing but zeros unpacks to."""
_UNPACKED_BYTES = 1 << 20
"""Decoded bytes passed on at a time, or more."""
PARQUET = b"PAR1"
ARROW_FILE = b"ARROW1"
ARROW_STREAM = b"\xff\xff\xff\xff"
"""The mark before the first message of an Arrow stream, which `datasets` writes."""
_GZIP = b"\x1f\x8b"
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60)))
"""A frame, or a frame to skip, with which parallel compressors begin (RFC 8878)."""
DAMAGE = (
    zlib.error,
    EOFError,
    zstandard.ZstdError,
    UnicodeDecodeError,
    csv.Error,
    pa.ArrowException,
)


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
    """Whether a file can be read from its middle: no archive, no UTF-16 or UTF-32, no table."""
    is_packed = head.startswith((PARQUET, ARROW_FILE, ARROW_STREAM, _GZIP, *_ZSTD))
    return not is_packed and encoding.wide(head) is None


def decoder(magic: bytes, handle: Hashed) -> Iterator[bytes] | None:
    """The UTF-8 of a compressed, UTF-16 or UTF-32 file; None when it can be read as it is."""
    if magic[:2] == _GZIP:
        return in_chunks(_unpacked(handle, lambda: zlib.decompressobj(wbits=31), _PACKED_BYTES))
    if magic[:4] in _ZSTD:
        buffered = io.BufferedReader(handle, _PACKED_BYTES)
        zstd = zstandard.ZstdDecompressor()
        return in_chunks(_unpacked(buffered, zstd.decompressobj, _PACKED_ZSTD_BYTES))
    name = encoding.wide(magic)
    return _transcoded(handle, name) if name else None


def _unpacked(
    handle: io.BufferedIOBase | io.RawIOBase, new_member: Callable[[], Any], packed_bytes: int
) -> Iterator[bytes]:
    """One gzip member or zstd frame after another; raises one of DAMAGE where they break off."""
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


def in_chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
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
    except DAMAGE:
        yield b"".join(held)
        raise
    yield b"".join(held)


def _transcoded(handle: Hashed, name: str) -> Iterator[bytes]:
    """UTF-8; half a surrogate pair stays one, which is mended in its own record."""
    decoder = codecs.getincrementaldecoder(name)("surrogatepass")
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
        except DAMAGE as error:
            self.damage = " ".join(f"{type(error).__name__}: {error}".split())


def read_range(uri: str, start: int, end: int, beyond: int = 0) -> bytes:
    """The bytes of a range, and as many of the next `beyond` as there are."""
    data = storage.read_range(uri, start, end + beyond)
    if len(data) < end - start:
        raise InputError(
            f"{uri} ends at byte {start + len(data):,}, but had {end:,} bytes when it was indexed: "
            "it changed during the run; run the same command again."
        )
    return data
