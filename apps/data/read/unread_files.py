"""Files that people have and `clean` does not read: known by their first bytes, and said so.

Taken for text, a packed file would be told to be in some encoding, and converted in vain.
"""

import zlib

import zstandard

from apps.common.errors import InputError
from apps.common.files import storage

_UNPACK = "unpack it, and name what is in it"
_EXPORT = "write its rows as JSON Lines, CSV or Parquet, and name that"
_KINDS = (
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ\0", "compressed by xz", _UNPACK),
    (b"\x04\x22\x4d\x18", "compressed by lz4", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"SQLite format 3\0", "an SQLite database", _EXPORT),
    (b"\x89HDF\r\n", "an HDF5 file", _EXPORT),
    (b"\x93NUMPY", "a NumPy array", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"FEA1", "a Feather file of version 1", _EXPORT),
    (b"\xd0\xcf\x11\xe0", "an old Office file", _EXPORT),
    (b"%PDF-", "a PDF", "name the dump that it was printed from"),
    *((b"\x80" + bytes((number,)), "a Python pickle", _EXPORT) for number in range(2, 6)),
)
_PAGES = (b"<!doctype html", b"<html")
_TAR_AT, _TAR = 257, b"ustar"
_HEAD_BYTES = 1 << 14
_OFFICE = "[Content_Types].xml"
"""A member that every file of Office has, which is a ZIP archive (ECMA-376)."""


def check_kind(uri: str) -> None:
    """Raises InputError for a file of a kind that is not read."""
    with storage.open_file(uri) as handle:
        head = handle.read(_HEAD_BYTES)
    for magic, what, advice in _KINDS:
        if head.startswith(magic):
            raise InputError(f"{uri} is {what}, which is not read; {advice}.")
    if _unpacked(head)[_TAR_AT:].startswith(_TAR):
        raise InputError(f"{uri} is a tar archive, which is not read; {_UNPACK}.")
    if head.lstrip().lower().startswith(_PAGES):
        raise InputError(
            f"{uri} is a web page; name the JSON of the export or dump that it came with."
        )


def check_members(uri: str, names: list[str]) -> None:
    """Raises InputError for a ZIP archive of these members that is an Office file."""
    if _OFFICE in names:
        raise InputError(f"{uri} is an Office file, which is not read; {_EXPORT}.")


def _unpacked(head: bytes) -> bytes:
    """The beginning of what a file holds."""
    try:
        if head.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
        if head.startswith(b"\x28\xb5\x2f\xfd"):
            return zstandard.ZstdDecompressor().decompressobj().decompress(head)
    except (zlib.error, zstandard.ZstdError):
        pass  # of damaged files it is told when they are read
    return head
