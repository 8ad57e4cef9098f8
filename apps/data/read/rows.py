"""Tables as JSON lines: CSV, TSV and Arrow files, a record for each row."""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import json
from collections.abc import Iterable, Iterator
from typing import IO

import orjson
import pyarrow as pa

from apps.data.read import parquet
from apps.data.read.csv_rows import rows_of_csv

_ROWS_AT_A_TIME = 256


def of_csv(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Raises csv.Error for a cell that is longer than any record may be."""
    return map(_line, rows_of_csv(chunks))


def _line(row: object) -> bytes:
    """Bytes that are no UTF-8 stay what they are, and cost their own record."""
    try:
        return orjson.dumps(row) + b"\n"
    except TypeError:
        text = json.dumps(row, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "surrogateescape")


def of_arrow(handle: IO[bytes], *, is_stream: bool) -> Iterator[bytes]:
    """Rows of an Arrow stream, as `datasets` writes them, or of an Arrow file.

    Raises pa.ArrowException where the file is damaged.
    """
    try:
        for batch in _batches(pa.PythonFile(handle, mode="r"), is_stream=is_stream):
            yield from _lines(batch)
    except OSError as error:
        if error.errno is not None:
            raise
        raise pa.ArrowInvalid(str(error)) from error  # what it says of a damaged message


def _batches(source: pa.PythonFile, *, is_stream: bool) -> Iterator[pa.RecordBatch]:
    if is_stream:
        yield from pa.ipc.open_stream(source)
        return
    file = pa.ipc.open_file(source)
    for i in range(file.num_record_batches):
        yield file.get_batch(i)


def _lines(batch: pa.RecordBatch) -> Iterator[bytes]:
    parquet.check(batch)
    for start in range(0, len(batch), _ROWS_AT_A_TIME):
        for row in parquet.rows_of(batch.slice(start, _ROWS_AT_A_TIME)):
            yield (row if isinstance(row, bytes) else parquet.as_json(row)) + b"\n"
