"""A file of lines that only grows, on a disk or in a bucket.

On a disk a line is appended. A bucket cannot append, so every write is an object of its own beside
the file, and no writer ever reads or replaces what another has written:

    raw.jsonl.parts/<time>-<random>.jsonl
"""

import hashlib
import time
import uuid

from apps.common.files import storage


def append(uri: str, lines: bytes) -> None:
    """Whole lines, on disk or in the bucket when this returns."""
    if storage.is_local(uri):
        storage.append_line(uri, lines)
        return
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
    storage.write_atomic(storage.join(f"{uri}.parts", name), lines.rstrip(b"\n") + b"\n")


def read(uri: str) -> bytes | None:
    """All lines in the order of their writing; None where nothing was written."""
    whole = storage.read_bytes(uri) if storage.exists(uri) else None
    if storage.is_local(uri):
        return whole
    parts = storage.read_all(f"{uri}.parts")
    return whole if not parts else (whole or b"") + b"".join(parts)


def digest(uri: str) -> str:
    """As of a file that holds all of it."""
    return hashlib.blake2b(read(uri) or b"", digest_size=16).hexdigest()
