"""Records of a Parquet file's row groups: rows that can be decoded, and the others as broken."""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from apps.common.files import storage
from apps.common.json_value import JsonObject
from apps.data.read import chains
from apps.data.read.column_names import unique_names
from apps.data.read.reader import Reading
from apps.data.read.record.layout import Names
from apps.data.read.record.metadata import IDS
from apps.data.read.record.parse import parse_mended
from apps.data.read.records import Broken, Record, cut, to_record

_NO_PYTHON = (ValueError, OverflowError, LookupError, NotImplementedError)
"""What pyarrow raises for values that Python has not: far dates, unknown zones, doubled names."""

_HEAD_ROWS = 32
"""of a batch of `head_rows`: a damaged one costs no row before it"""


@dataclass(frozen=True, slots=True)
class RowGroup:
    rows: int
    bytes: int
    """uncompressed"""


def row_groups(uri: str) -> tuple[list[RowGroup], str | None]:
    """The row groups of a file, or none and why it cannot be read."""
    try:
        with storage.open_file(uri) as handle:
            metadata = pq.ParquetFile(handle).metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        return [], " ".join(str(error).split())
    return [RowGroup(group.num_rows, group.total_byte_size) for group in groups], None


def read(
    uri: str, first_group: int, last_group: int, reading: Reading, *, ordinal: int, prefix: str
) -> Iterator[Record | Broken]:
    """Rows of row groups [first, last). A row's bytes are those of its JSON.

    What cannot be decoded of a row group is one broken record a row.
    """
    with storage.open_file(uri) as handle:
        watched = _Watched(handle)
        file = pq.ParquetFile(watched)
        for group in range(first_group, last_group):
            left = file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(256, row_groups=[group], use_threads=False):
                    for row in rows_of(batch):
                        yield _record(row, reading, f"{prefix}-{ordinal:08d}")
                        ordinal += 1
                        left -= 1
            except (pa.ArrowException, OSError):
                if watched.has_failed:
                    raise
            yield from (Broken(0, 0, "damaged-row-group", b"") for _ in range(left))
            ordinal += left


class _Watched(io.RawIOBase):
    """A file that remembers whether it could not be read, which is no damage of what it holds."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.has_failed = False

    def read(self, size: int = -1) -> bytes:
        try:
            return self._handle.read(size)
        except BaseException:
            self.has_failed = True
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def rows_of(batch: pa.RecordBatch) -> Iterator[JsonObject | bytes]:
    """Each row, or its JSON when a text in it is no UTF-8. Old writers have texts as bytes."""
    batch = batch.rename_columns(unique_names(batch.schema.names))
    has_bytes = any(_has_bytes(field.type) for field in batch.schema)
    try:
        yield from map(_decoded, batch.to_pylist()) if has_bytes else batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    except _NO_PYTHON:  # a date beyond the year 9999, a zone that nobody knows
        batch = _readable(batch)
    for i in range(len(batch)):
        row = batch.slice(i, 1)
        try:
            yield _decoded(row.to_pylist()[0])
        except UnicodeDecodeError:
            yield _json_of(row)


def _decoded(row: JsonObject) -> JsonObject:
    """Bytes as the texts that they are."""
    return orjson.loads(as_json(row))


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether a type, or one of a field in it, has bytes for values."""
    if pa.types.is_nested(kind):
        return any(_has_bytes(kind.field(i).type) for i in range(kind.num_fields))
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_kind(kind) for is_kind in _KINDS_OF_BYTES)


_KINDS_OF_BYTES = (
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
    pa.types.is_binary_view,
)


def _readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Columns that cannot become Python as numbers, or as a word for what they are."""
    columns = [column if _can_be_read(column) else _as_number(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _can_be_read(column: pa.Array) -> bool:
    try:
        column.to_pylist()
    except UnicodeDecodeError:
        return True
    except _NO_PYTHON:
        return False
    return True


def _as_number(column: pa.Array) -> pa.Array:
    try:
        numbers = column.cast(_changed(column.type, _time_as_number))
        if _can_be_read(numbers):
            return numbers
    except pa.ArrowException:
        pass
    return pa.array([str(column.type) if one.is_valid else None for one in column], pa.string())


def check(batch: pa.RecordBatch) -> None:
    """Raises pa.ArrowInvalid for a batch that points beyond its bytes; bad UTF-8 is no damage."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        _with_types(batch, _text_as_bytes).validate(full=True)


def _json_of(row: pa.RecordBatch) -> bytes:
    """The bytes that are no UTF-8 stay what they are."""
    value = _with_types(row, _text_as_bytes).to_pylist()[0]
    text = json.dumps(value, ensure_ascii=False, default=_surrogates)
    return text.encode("utf-8", "surrogateescape")


Change = Callable[[pa.DataType], pa.DataType]


def _with_types(batch: pa.RecordBatch, change: Change) -> pa.RecordBatch:
    fields = [field.with_type(_changed(field.type, change)) for field in batch.schema]
    return batch.cast(pa.schema(fields))


def _changed(kind: pa.DataType, change: Change) -> pa.DataType:
    """A type, and those of the fields in it, changed."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_changed(field.type, change)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_changed(kind.value_type, change))
    return change(kind)


def _text_as_bytes(kind: pa.DataType) -> pa.DataType:
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pa.large_binary() if is_text else kind


def _time_as_number(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_date32(kind):
        return pa.int32()
    is_long = pa.types.is_timestamp(kind) or pa.types.is_date64(kind) or pa.types.is_duration(kind)
    return pa.int64() if is_long else kind


def _surrogates(value: Any) -> str:
    is_bytes = isinstance(value, bytes)
    return value.decode("utf-8", "surrogateescape") if is_bytes else str(value)


def _record(row: JsonObject | bytes, reading: Reading, record_id: str) -> Record | Broken:
    if isinstance(row, bytes):
        value, mended = parse_mended(row)
        if value is None:
            return Broken(0, len(row), "bad-utf-8", cut(row))
        return to_record(value, row, reading, record_id, 0, mended)
    return to_record(row, as_json(row), reading, record_id, 0)


def as_json(row: JsonObject) -> bytes:
    return orjson.dumps(row, default=_plain)


def head_rows(uri: str, num_bytes: int) -> Iterator[JsonObject]:
    """The rows that can be decoded among the first `num_bytes`, about; none behind damage."""
    left = num_bytes
    try:
        with storage.open_file(uri) as handle:
            for batch in pq.ParquetFile(handle).iter_batches(_HEAD_ROWS, use_threads=False):
                yield from (row for row in rows_of(batch) if not isinstance(row, bytes))
                left -= batch.nbytes
                if left <= 0:
                    return
    except (pa.ArrowException, OSError):
        pass


def may_have_pieces(uri: str, names: Names) -> bool:
    """Whether a text in a column of ids ends as that of a piece of a split dump does."""
    try:
        with storage.open_file(uri) as handle:
            file = pq.ParquetFile(handle)
            ids = [
                name
                for name in file.schema_arrow.names
                if names.columns.get(name, name).lower() in IDS
            ]
            for batch in file.iter_batches(columns=ids, use_threads=False):
                texts = (text for column in batch.columns for text in column.to_pylist())
                if any(chains.piece_of(text) for text in texts if isinstance(text, str)):
                    return True
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        pass
    return False


def all_rows(uri: str) -> Iterator[bytes]:
    """The JSON of every row. Raises pa.ArrowException where the file is damaged."""
    with storage.open_file(uri) as handle:
        for batch in pq.ParquetFile(handle).iter_batches(256, use_threads=False):
            for row in rows_of(batch):
                yield (row if isinstance(row, bytes) else as_json(row)) + b"\n"


def _plain(value: Any) -> Any:
    """Bytes that are a text as one; of others how many there are, for they say nothing."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"bytes": len(value)}
