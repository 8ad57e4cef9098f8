"""A file of lines that only grows, on a disk or in a bucket.

On a disk a line is appended. A bucket cannot append, so every write is an object of its own beside
the file, and no writer ever reads or replaces what another has written:

    raw.jsonl.parts/<time>-<random>.jsonl
"""

import contextlib
import hashlib
import time
import uuid

import orjson

from apps.common.files import storage
from apps.common.json_value import JsonObject, JsonValue

_SUFFIX = ".parts"


def append(uri: str, lines: bytes) -> None:
    """Whole lines, on disk or in the bucket when this returns."""
    lines = lines.rstrip(b"\n") + b"\n"
    if storage.is_local(uri):
        storage.append_lines(uri, lines)
        return
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
    storage.write_atomic(storage.join(uri + _SUFFIX, name), lines)


def replace(uri: str, lines: bytes) -> None:
    """These lines in place of all that was there."""
    if not storage.is_local(uri):
        storage.remove_tree(uri + _SUFFIX)
    storage.write_atomic(uri, lines)


def read(uri: str) -> bytes | None:
    """All lines in the order of their writing; None where nothing was written."""
    whole = storage.read_bytes(uri) if storage.exists(uri) else None
    if storage.is_local(uri):
        return whole
    parts = storage.read_all(uri + _SUFFIX)
    return whole if not parts else (whole or b"") + b"".join(parts)


def records(uri: str) -> list[JsonObject]:
    """Every line that is a JSON object; [] where nothing was written.

    A line that its writer was killed over is passed over, wherever it stands, as blank ones are.
    """
    found: list[JsonObject] = []
    for line in (read(uri) or b"").split(b"\n"):
        with contextlib.suppress(orjson.JSONDecodeError):
            value: JsonValue = orjson.loads(line)
            if isinstance(value, dict):
                found.append(value)
    return found


def names(folder: str) -> list[str]:
    """As `storage.list_dir`, where a file that has parts stands under its own name."""
    return sorted({name.removesuffix(_SUFFIX) for name in storage.list_dir(folder)})


def digest(uri: str) -> str:
    """As of a file that holds all of it."""
    return hashlib.blake2b(read(uri) or b"", digest_size=16).hexdigest()
