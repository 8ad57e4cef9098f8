"""Parquet files whose bytes depend on their rows only, with their digest."""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from apps.common.files import storage

_ROW_GROUP_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A file."""

    rows: int
    bytes: int
    digest: str
    """blake2b"""


def table_of(rows: Sequence[object], schema: pa.Schema) -> pa.Table:
    """Dataclasses whose fields are the schema's columns, as a table."""
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def write(
    uri: str, tables: Iterable[pa.Table], schema: pa.Schema, *, lasting: bool = True
) -> Written:
    """Write tables one after another: row groups are cut by text size, whatever the tables were.

    What is not `lasting` is for the next step: compressed less, in two thirds of the time.
    """
    compression, level = ("zstd", 3) if lasting else ("snappy", None)
    rows = 0
    with storage.atomic_file(uri) as handle:
        hashed = _HashedWriter(handle)
        with (
            pa.PythonFile(hashed, mode="w") as sink,
            pq.ParquetWriter(
                sink, schema, compression=compression, compression_level=level
            ) as writer,
        ):
            for group in _row_groups(tables):
                writer.write_table(group, row_group_size=max(1, len(group)))
                rows += len(group)
    return Written(rows=rows, bytes=hashed.num_bytes, digest=hashed.digest.hexdigest())


def _row_groups(tables: Iterable[pa.Table]) -> Iterable[pa.Table]:
    """Slices of about _ROW_GROUP_BYTES, cut where the running size says and nowhere else."""
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        for start in range(0, len(table), 64):
            piece = table.slice(start, 64)
            held.append(piece)
            size += piece.nbytes
            if size >= _ROW_GROUP_BYTES:
                yield pa.concat_tables(held).combine_chunks()
                held, size = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()


def read(uri: str, columns: list[str] | None = None) -> pa.Table:
    with storage.open_file(uri) as handle:
        file = pq.ParquetFile(pa.PythonFile(handle, mode="r"))
        return file.read(columns, use_threads=False)


def batches(uri: str, columns: list[str] | None = None) -> Iterable[pa.Table]:
    """The rows of a file, a few at a time."""
    with storage.open_file(uri) as handle:
        file = pq.ParquetFile(pa.PythonFile(handle, mode="r"))
        for batch in file.iter_batches(batch_size=256, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch])


class _HashedWriter:
    """A file whose bytes are digested as they are written."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.digest = hashlib.blake2b(digest_size=16)
        self.num_bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = bytes(data)
        self.digest.update(view)
        self.num_bytes += len(view)
        self._handle.write(view)
        return len(view)

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        self._handle.flush()

    def close(self) -> None:
        """The owner closes the file underneath."""
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
