"""The folders of clean conversations that `pack` mixes, and their weights."""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from apps.common.errors import CorruptError, InputError
from apps.common.files import storage
from apps.common.files.config import RESOLVED_NAME
from apps.common.json_value import JsonObject
from apps.data.read.record.layout import object_of

_UNIT_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RowGroups:
    """Row groups [first, stop) of a Parquet file of clean conversations."""

    uri: str
    blake2b: str
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Source:
    """A clean folder and its share in the mix."""

    uri: str
    weight: float
    """copies of each conversation; a fraction takes that share of them"""
    files: tuple["SourceFile", ...]


@dataclass(frozen=True, slots=True)
class SourceFile:
    uri: str
    blake2b: str
    group_rows: tuple[int, ...]
    """conversations in each row group"""
    group_bytes: tuple[int, ...]
    """uncompressed"""

    def units(self) -> list[RowGroups]:
        """Row groups of at most 16 MB of text together, or one alone."""
        ranges: list[tuple[int, int]] = []
        first, size = 0, 0
        for i, num_bytes in enumerate(self.group_bytes):
            if i > first and size + num_bytes > _UNIT_BYTES:
                ranges.append((first, i))
                first, size = i, 0
            size += num_bytes
        if self.group_bytes:
            ranges.append((first, len(self.group_bytes)))
        return [
            RowGroups(uri=self.uri, blake2b=self.blake2b, first=first, stop=stop)
            for first, stop in ranges
        ]


def find_sources(texts: Sequence[str]) -> tuple[Source, ...]:
    """`DIR` or `DIR=weight` each; what is given twice is taken once, with both weights together."""
    weights: dict[str, float] = {}
    for text in texts:
        uri, weight = _weighted(text)
        weights[uri] = weights.get(uri, 0.0) + weight
    return tuple(find_source(uri, weight) for uri, weight in weights.items())


def _weighted(text: str) -> tuple[str, float]:
    """Absolute place and weight; raises InputError for a weight that is none.

    A folder named `day=20240101` is one, and `day=20240101=2` it twice.
    """
    uri, _, tail = text.rpartition("=")
    if uri and _is_number(tail) and not storage.is_dir(text):
        weight = float(tail)
    else:
        uri, weight = text, 1.0
    if not 0 < weight <= 100:
        raise InputError(f"{text!r}: the weight is {weight}; expected more than 0, at most 100.")
    return storage.absolute(uri), weight


def find_source(uri: str, weight: float = 1.0) -> Source:
    """A place's Parquet files; raises InputError when there are none."""
    present = storage.list_dir(uri)
    names = [name for name in present if name.endswith(".parquet")]
    if not names and uri.endswith(".parquet") and storage.exists(uri):
        return Source(uri, weight, (_source_file(uri),))
    commit = storage.read_commit(uri)
    if RESOLVED_NAME in present and commit is None:
        raise InputError(
            f"{uri} holds no finished output of `python -m apps.data clean`; finish that command, "
            "or name its --out folder."
        )
    written = object_of((commit or {}).get("shards")) or {}
    if missing := sorted(written.keys() - set(names)):
        raise InputError(
            f"{uri} lacks {missing[0]}, which `clean` wrote there; copy the whole folder again."
        )
    if not names and RESOLVED_NAME in present:
        raise InputError(
            f"{uri} kept no conversation; `python -m apps.data report {uri}` says why."
        )
    if not names:
        raise InputError(
            f"{uri} holds no Parquet files; expected a folder made by `python -m apps.data clean`."
        )
    files = tuple(_source_file(storage.join(uri, name)) for name in names)
    for name, file in zip(names, files, strict=True):
        _check_unchanged(file, object_of(written.get(name)) or {})
    return Source(uri, weight, files)


def _check_unchanged(file: SourceFile, written: JsonObject) -> None:
    """Raises InputError for a shard that is not the one `clean` wrote, as after a broken copy."""
    if written and written.get("digest") != file.blake2b:
        raise InputError(
            f"{file.uri} is not what `clean` wrote there; copy it again, or put a file of your own "
            "into a folder of its own."
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _source_file(uri: str) -> SourceFile:
    fs, path = storage.filesystem(uri)
    try:
        with pq.ParquetFile(path, filesystem=fs) as file:
            schema, meta = file.schema_arrow, file.metadata
    except pa.ArrowInvalid as error:
        raise CorruptError(f"{uri} is not a whole Parquet file ({error}).") from error
    found: Any = schema.field("messages").type if "messages" in schema.names else None
    fields = found.value_type if found is not None and hasattr(found, "value_type") else ()
    if not {"role", "content"} <= {field.name for field in fields}:
        raise InputError(
            f"{uri} has no column messages: list<struct<role, content>>, but "
            f"{', '.join(schema.names)}; expected the output of `python -m apps.data clean`."
        )
    _check_texts(uri, [*fields, *schema])
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    return SourceFile(
        uri,
        storage.digest_file(uri),
        tuple(group.num_rows for group in groups),
        tuple(group.total_byte_size for group in groups),
    )


_TEXTS = ("id", "role", "content", "tools", "tool_calls")


def _check_texts(uri: str, fields: list[pa.Field]) -> None:
    """Raises InputError for a column that other makers fill with lists or numbers."""
    for field in fields:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if field.name in _TEXTS and not (is_text or pa.types.is_null(kind)):
            raise InputError(
                f"{uri} has {field.name} as {field.type}, expected a text; put the file through "
                "`python -m apps.data clean` first, which reads it as it is."
            )
