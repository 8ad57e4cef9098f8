"""Where tasks may cut a file: the first step of `clean`.

A file is indexed in pieces that are read at the same time. A piece gives its digest and, for each
cell (`unit_bytes` of the file), where its first record starts and how many do; joined, they give
ranges that begin and end at records. What cannot be read from its middle (compressed, UTF-16,
Parquet, arrays that only brackets divide) is indexed by its first piece alone; of tables, members
of archives and messages that are to be put together to trees, it leaves JSON lines to be read.

    bytes   0    1 MB   2 MB   3 MB       unit_bytes 1 MB: cells 0, 1, 2 of one file
    cells   (0, 1, 3)  (2, 2_400_000, 1)  three records start in cell 0, the first at byte 1;
                                          none in cell 1, which the third record fills
    ranges  1-2_400_000 records 0-2,  2_400_000-3_000_000 record 3
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from apps.common.files import storage
from apps.data.read import (
    chains,
    csv_rows,
    encoding,
    first_records,
    inputs,
    json_spans,
    parquet,
    rows,
    source,
)
from apps.data.read.first_records import Seen
from apps.data.read.json_spans import Separation
from apps.data.read.reader import Reading
from apps.data.units import Unit

PIECE_BYTES = 32 << 20
Format = Literal["json", "parquet"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PieceArgs:
    """Bytes [start, end) of a file of `size` bytes."""

    uri: str
    stamp: str
    size: int
    start: int
    end: int
    unit_bytes: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class Cell:
    """Where the first record that starts in a cell does, and how many do."""

    number: int
    first: int
    records: int


@dataclass(frozen=True, slots=True)
class Range:
    """Records of a file, between bytes or row groups [start, end)."""

    start: int
    end: int
    ordinal: int
    """of the first record in the file"""
    records: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What one piece of a file holds."""

    uri: str
    data: str
    """where the ranges are read: the file, or what was decoded of it"""
    digest: str
    format: Format
    separation: Separation | None
    bytes: int
    seen: Seen | None
    """what the first records are; None behind the first piece"""
    cells: tuple[Cell, ...] = ()
    row_groups: tuple[Range, ...] = ()
    damage: str | None = None
    may_be_split: bool = False
    """whether a text in it ends as the id of a piece of a split dump does"""


@dataclass(frozen=True, slots=True)
class IndexedPiece:
    """The manifest; `piece` is None when the first piece of the file stands for it."""

    uri: str
    piece: Piece | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FileIndex:
    """A file, ready to be read in ranges."""

    uri: str
    data: str
    digest: str
    """of the file, or of its pieces' digests when there are more than one"""
    format: Format
    separation: Separation | None
    bytes: int
    """decoded; 0 for Parquet"""
    head_bytes: int
    """before the first record"""
    damage: str | None
    """why the file ends early"""
    seen: Seen
    ranges: tuple[Range, ...]
    may_be_split: bool


def units(files: Iterable[str], unit_bytes: int, reading: Reading) -> list[Unit[PieceArgs]]:
    """The pieces of every file; a file that changes gets others."""
    pieces: list[Unit[PieceArgs]] = []
    for uri, (size, stamp) in inputs.sizes_and_stamps(files).items():
        last = 1 if inputs.is_member(uri) or csv_rows.is_csv(uri) else size
        for start in range(0, max(1, last), PIECE_BYTES):
            args = PieceArgs(
                uri=uri,
                stamp=stamp,
                size=size,
                start=start,
                end=min(size, start + PIECE_BYTES),
                unit_bytes=unit_bytes,
                reading=reading,
            )
            end = args.end
            pieces.append(Unit(stage="index", name=f"{uri} bytes {start:,}-{end:,}", args=args))
    return pieces


def index(args: PieceArgs, folder: str) -> IndexedPiece:
    """Index one piece of a file; see `join` for what comes of them."""
    if inputs.is_member(args.uri) or csv_rows.is_csv(args.uri):
        return IndexedPiece(args.uri, _index_whole(args, folder))
    head = source.read_range(args.uri, 0, min(args.size, json_spans.HEAD_BYTES))
    separation = json_spans.sniff(head, args.reading.names) if source.is_plain(head) else None
    if separation is not None and separation.kind != "brackets":
        seen = first_records.of_json(head, separation, args.reading)
        if seen.regrouped is None:
            return IndexedPiece(args.uri, _index_piece(args, separation, seen))
    return IndexedPiece(args.uri, _index_whole(args, folder) if args.start == 0 else None)


def _index_piece(args: PieceArgs, separation: Separation, seen: Seen) -> Piece:
    start, end = args.start, args.end
    first = start - min(start, 1)  # the byte that says whether a line starts with the piece
    data = source.read_range(args.uri, first, end, json_spans.ANCHOR_BYTES)
    digest = hashlib.blake2b(memoryview(data)[start - first : end - first], digest_size=16)
    starts = json_spans.record_starts([data], separation, offset=first)
    return Piece(
        uri=args.uri,
        data=args.uri,
        digest=digest.hexdigest(),
        format="json",
        separation=separation,
        bytes=end - start,
        seen=seen if start == 0 else None,
        cells=_cells((at for at in starts if start <= at < end), args.unit_bytes),
        may_be_split=chains.may_have_pieces(data),
    )


def _index_whole(args: PieceArgs, folder: str) -> Piece:
    """From the first byte to the last; whatever is not read as it lies is decoded to a spool."""
    data, damage = args.uri, None
    if inputs.is_member(args.uri):
        data = storage.join(folder, "member")
        damage = inputs.extract(args.uri, data)
    with storage.open_file(data) as handle:
        magic = handle.read(encoding.MAGIC_BYTES)
        handle.seek(0)
        hashed = source.Hashed(handle)
        if magic[:4] == source.PARQUET:
            piece = _index_parquet(args, data, hashed, folder)
        elif magic[:4] == source.ARROW_STREAM or magic.startswith(source.ARROW_FILE):
            _drain(hashed)
            handle.seek(0)
            lines = rows.of_arrow(handle, is_stream=magic[:4] == source.ARROW_STREAM)
            piece = _index_lines(args, lines, hashed, folder)
        else:
            piece = _index_text(args, data, magic, hashed, folder)
    return dataclasses.replace(piece, damage=piece.damage or damage)


def _index_text(
    args: PieceArgs, data: str, magic: bytes, hashed: source.Hashed, folder: str
) -> Piece:
    decoded = source.decoder(magic, hashed)
    if csv_rows.is_csv(args.uri):
        return _index_lines(args, rows.of_csv(decoded or source.chunks(hashed)), hashed, folder)
    spool = storage.join(folder, "decoded") if decoded is not None else None
    spooled = source.Spooled(decoded or source.chunks(hashed), spool)
    piece = _index_chunks(args, spooled, spool or data, hashed)
    return _made_whole(args, piece, hashed, folder)


def _index_lines(
    args: PieceArgs, lines: Iterator[bytes], hashed: source.Hashed, folder: str
) -> Piece:
    """Rows of a table, as JSON lines."""
    spool = storage.join(folder, "rows")
    piece = _index_chunks(args, source.Spooled(_gathered(lines), spool), spool, hashed)
    return _made_whole(args, piece, hashed, folder)


def _gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines in chunks; what comes before damage is not lost with it."""
    return source.in_chunks(iter(lines))


def _made_whole(args: PieceArgs, piece: Piece, hashed: source.Hashed, folder: str) -> Piece:
    """Its parts of conversations put together; what is none stays as it is."""
    if piece.seen is None or piece.seen.regrouped is None or piece.separation is None:
        return piece
    lines = piece.seen.regrouped(first_records.lines_of(piece.data, piece.separation))
    whole = _index_regrouped(args, lines, hashed, folder)
    return dataclasses.replace(whole, damage=piece.damage, digest=piece.digest)


def _index_regrouped(
    args: PieceArgs, lines: Iterable[bytes], hashed: source.Hashed, folder: str
) -> Piece:
    spool = storage.join(folder, "regrouped")
    return _index_chunks(args, source.Spooled(_gathered(lines), spool), spool, hashed)


def _index_chunks(
    args: PieceArgs, spooled: source.Spooled, data: str, hashed: source.Hashed
) -> Piece:
    chunks = iter(spooled)
    head = _head(chunks)
    separation = json_spans.sniff(head[: json_spans.HEAD_BYTES], args.reading.names)
    searched = _Searched(itertools.chain([head], chunks))
    starts = json_spans.record_starts(searched, separation)
    cells = _cells(starts, args.unit_bytes)
    return Piece(
        uri=args.uri,
        data=data,
        digest=hashed.hexdigest(),
        format="json",
        separation=separation,
        bytes=spooled.num_bytes,
        seen=first_records.of_json(head[: json_spans.HEAD_BYTES], separation, args.reading),
        cells=cells,
        damage=spooled.damage,
        may_be_split=searched.may_be_split,
    )


class _Searched:
    """Chunks that are searched for ids of pieces on their way."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.may_be_split = False

    def __iter__(self) -> Iterator[bytes]:
        end = b""
        for chunk in self._chunks:
            if not self.may_be_split:
                self.may_be_split = chains.may_have_pieces(end + chunk)
                end = chunk[-chains.PIECE_END_BYTES :]
            yield chunk


def _drain(hashed: source.Hashed) -> None:
    while hashed.read(source.CHUNK_BYTES):
        pass


def _index_parquet(args: PieceArgs, data: str, hashed: source.Hashed, folder: str) -> Piece:
    _drain(hashed)
    seen = first_records.of_values(parquet.head_rows(data, json_spans.HEAD_BYTES), args.reading)
    if seen.regrouped is not None:
        return _index_regrouped(args, seen.regrouped(parquet.all_rows(data)), hashed, folder)
    if parquet.may_have_pieces(data, args.reading.names):  # they are fetched by their bytes
        return _index_lines(args, parquet.all_rows(data), hashed, folder)
    groups, damage = parquet.row_groups(data)
    return Piece(
        uri=args.uri,
        data=data,
        digest=hashed.hexdigest(),
        format="parquet",
        separation=None,
        bytes=0,
        seen=seen,
        row_groups=_row_group_ranges(groups, args.unit_bytes),
        damage=damage,
    )


def _head(chunks: Iterator[bytes]) -> bytes:
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= json_spans.HEAD_BYTES:
            break
    return head


def _cells(starts: Iterable[int], unit_bytes: int) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    number, first, records = -1, 0, 0
    for at in starts:
        if at // unit_bytes == number:
            records += 1
            continue
        if records:
            cells.append(Cell(number, first, records))
        number, first, records = at // unit_bytes, at, 1
    if records:
        cells.append(Cell(number, first, records))
    return tuple(cells)


def join(indexed: list[IndexedPiece]) -> list[FileIndex]:
    """One index for each file, from its pieces in order."""
    files = itertools.groupby(indexed, key=lambda one: one.uri)
    return [_join_file([one.piece for one in own if one.piece is not None]) for _, own in files]


def _join_file(pieces: list[Piece]) -> FileIndex:
    first = pieces[0]
    size = sum(piece.bytes for piece in pieces)
    body = min(first.separation.body, size) if first.separation else 0
    cells = [cell for piece in pieces for cell in piece.cells]
    return FileIndex(
        uri=first.uri,
        data=first.data,
        digest=_join_digests([piece.digest for piece in pieces]),
        format=first.format,
        separation=first.separation,
        bytes=size,
        head_bytes=body,
        damage=first.damage,
        seen=first.seen or Seen(),
        ranges=first.row_groups if first.format == "parquet" else _ranges(cells, body, size),
        may_be_split=any(piece.may_be_split for piece in pieces),
    )


def _join_digests(digests: list[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b(bytes.fromhex("".join(digests)), digest_size=16).hexdigest()


def _ranges(cells: list[Cell], body: int, size: int) -> tuple[Range, ...]:
    """From the first record of a cell to that of the next; the first range from `body` on.

    Two pieces may each have a part of one cell.
    """
    merged: list[Cell] = []
    for cell in cells:
        if merged and merged[-1].number == cell.number:
            last = merged[-1]
            merged[-1] = Cell(last.number, last.first, last.records + cell.records)
        else:
            merged.append(cell)
    if not merged:
        return (Range(body, size, 0, 0),) if size > body else ()
    starts = [body, *(cell.first for cell in merged[1:]), size]
    ordinals = [0, *itertools.accumulate(cell.records for cell in merged)]
    return tuple(
        Range(start, end, ordinal, cell.records)
        for cell, ordinal, (start, end) in zip(
            merged, ordinals, itertools.pairwise(starts), strict=False
        )
    )


def _row_group_ranges(groups: list[parquet.RowGroup], unit_bytes: int) -> tuple[Range, ...]:
    """Ranges of row groups of about `unit_bytes`."""
    ranges: list[Range] = []
    start = first_ordinal = ordinal = size = 0
    for i, group in enumerate(groups):
        if size and size + group.bytes > unit_bytes:
            ranges.append(Range(start, i, first_ordinal, ordinal - first_ordinal))
            start, first_ordinal, size = i, ordinal, 0
        size += group.bytes
        ordinal += group.rows
    if groups:
        ranges.append(Range(start, len(groups), first_ordinal, ordinal - first_ordinal))
    return tuple(ranges)
