"""Packed rows on disk: written by `apps.data pack`, read by `apps.train`.

    pack = open_pack("path/to/pack")             # pack.json, commit marker, shard sizes
    pack.verify()                                # every shard's digest; once, in the driver
    batch = pack.split("train").rows([17, 3])    # any rows, any order

Shape legend: R rows asked for, T = max_length tokens.

    pack/  train/00000.parquet ...  val/00000.parquet ...  pack.json  ledger.json  COMMITTED.json
"""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeArgument=false

import contextlib
import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from apps.common.errors import CorruptError, InputError, NotFoundError
from apps.common.files import storage
from apps.common.files.schema import PACK_NAME, packed_schema
from apps.common.text.conversation import ChatTemplate

SPLITS = ("train", "val")
_ROWS_PER_GROUP = 64
_CACHE_BYTES = 256 << 20


class Rows(NamedTuple):
    """Packed rows in memory."""

    input_ids: npt.NDArray[np.int32]
    """[R, T]; the unused tail of a row holds the pad id"""
    loss_mask: npt.NDArray[np.bool_]
    """[R, T]; true where the token is to be predicted; false in the tail"""
    lengths: list[npt.NDArray[np.int32]]
    """R arrays; tokens of each conversation segment in the row, in order; sum <= T"""


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What pack.json says of one Parquet file."""

    name: str
    """Path inside the pack, `train/00000.parquet`."""
    num_rows: int
    num_bytes: int
    blake2b: str


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """Totals of one split."""

    num_rows: int
    num_segments: int
    num_tokens: int
    """Without the padded tails."""
    num_supervised_tokens: int
    fill: float
    """num_tokens / (num_rows * max_length)"""
    shards: tuple[ShardInfo, ...]


@dataclass(frozen=True, slots=True)
class PackInfo:
    """pack.json."""

    max_length: int
    pad_id: int
    mode: str
    """`pack`, or `pad` for one segment a row."""
    tokenizer_digest: str
    """Equal digests give equal ids: `apps.common.text.tokenizer.load_tokenizer(folder).digest`."""
    template: ChatTemplate
    """For the exported model: `apps.common.text.templates.write_template(folder, template)`."""
    splits: dict[str, SplitInfo]

    @property
    def digest(self) -> str:
        """blake2b over the shards' digests in order: equal digests mean equal rows."""
        hasher = hashlib.blake2b(digest_size=16)
        for split in SPLITS:
            for shard in self.splits[split].shards:
                hasher.update(f"{shard.name} {shard.blake2b}\n".encode())
        return hasher.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {
            "max_length": self.max_length,
            "pad_id": self.pad_id,
            "mode": self.mode,
            "tokenizer_digest": self.tokenizer_digest,
            "template": self.template.to_dict(),
            "splits": {name: asdict(split) for name, split in self.splits.items()},
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "PackInfo":
        fields = {name: value for name, value in saved.items() if name != "digest"}
        fields["template"] = ChatTemplate.from_dict(saved["template"])
        fields["splits"] = {
            name: SplitInfo(shards=tuple(ShardInfo(**s) for s in split.pop("shards")), **split)
            for name, split in deepcopy(saved["splits"]).items()
        }
        return cls(**fields)


class Split:
    """Random access to the rows of one split; keeps recently read row groups in memory.

    Of a shard only footers and the wanted row groups are read, and no file stays open. Safe to use
    from several threads.
    """

    def __init__(self, uri: str, info: SplitInfo, max_length: int) -> None:
        self.info = info
        self.max_length = max_length
        self._uri = uri
        self._first_rows = [0, *accumulate(shard.num_rows for shard in info.shards)]
        self._footers: dict[int, tuple[pq.FileMetaData, list[int]]] = {}
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._groups: OrderedDict[tuple[int, int], Rows] = OrderedDict()
        group_bytes = _ROWS_PER_GROUP * max_length * 5
        self._max_groups = max(1, _CACHE_BYTES // group_bytes)

    def __len__(self) -> int:
        return self.info.num_rows

    def rows(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Rows:
        """Rows by index, in the order asked for; raises IndexError outside [0, len)."""
        input_ids = np.empty((len(indices), self.max_length), np.int32)
        loss_mask = np.empty((len(indices), self.max_length), np.bool_)
        lengths: list[npt.NDArray[np.int32]] = []
        for at, index in enumerate(indices):
            group, row = self._locate(int(index))
            input_ids[at], loss_mask[at] = group.input_ids[row], group.loss_mask[row]
            lengths.append(group.lengths[row])
        return Rows(input_ids, loss_mask, lengths)

    def largest_id(self) -> int:
        """Of all rows, padding included, read off the shards' footers; -1 without rows."""
        largest = -1
        for shard in range(len(self.info.shards)):
            meta, _ = self._footer(shard)
            for group in range(meta.num_row_groups):
                largest = max(largest, int(meta.row_group(group).column(0).statistics.max))
        return largest

    def read_ahead(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> None:
        """Begin to read rows that will be asked for, as many as there is room for, in a thread."""
        if self._reader is None or not self._reader.is_alive():
            soon = [int(index) for index in indices[: self._max_groups // 2]]
            self._reader = threading.Thread(target=self._read, args=(soon,), daemon=True)
            self._reader.start()

    def _read(self, indices: list[int]) -> None:
        with contextlib.suppress(Exception):  # told to whoever needs the row
            for index in indices:
                self._locate(index)

    def _locate(self, index: int) -> tuple[Rows, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} is outside [0, {len(self)})")
        shard = bisect_right(self._first_rows, index) - 1
        row = index - self._first_rows[shard]
        with self._lock:
            _, first_of_group = self._footer(shard)
        group = bisect_right(first_of_group, row) - 1
        return self._group(shard, group), row - first_of_group[group]

    def _footer(self, shard: int) -> tuple[pq.FileMetaData, list[int]]:
        """What a shard's footer says, and the first row of each row group."""
        if shard not in self._footers:
            with storage.open_file(self._shard_uri(shard), exact=True) as handle:
                meta = pq.read_metadata(handle)
            counts = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
            self._footers[shard] = meta, [0, *accumulate(counts)]
        return self._footers[shard]

    def _shard_uri(self, shard: int) -> str:
        return storage.join(self._uri, self.info.shards[shard].name)

    def _group(self, shard: int, group: int) -> Rows:
        """From the cache, or read outside the lock: a step's own row need not wait for others."""
        key = (shard, group)
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)
                return self._groups[key]
            meta, _ = self._footer(shard)
        with storage.open_file(self._shard_uri(shard), exact=True) as handle:
            # Its columns lie side by side: with pre_buffer they are one request, not three.
            file = pq.ParquetFile(handle, metadata=meta, pre_buffer=True)
            rows = from_table(file.read_row_group(group, use_threads=False), self.max_length)
        with self._lock:
            self._groups[key] = rows
            if len(self._groups) > self._max_groups:
                self._groups.popitem(last=False)
        return rows


@dataclass(frozen=True, slots=True)
class Pack:
    """An opened pack."""

    uri: str
    info: PackInfo

    def split(self, name: str) -> Split:
        """`train` or `val`."""
        if name not in self.info.splits:
            raise InputError(
                f"No split {name!r} in {self.uri}; expected one of {', '.join(SPLITS)}."
            )
        return Split(self.uri, self.info.splits[name], self.info.max_length)

    def verify(self) -> None:
        """Read every shard and compare its digest; raises CorruptError naming the first bad one."""
        for split in self.info.splits.values():
            for shard in split.shards:
                digest = storage.digest_file(storage.join(self.uri, shard.name))
                if digest != shard.blake2b:
                    raise CorruptError(
                        f"{self.uri}/{shard.name} has digest {digest}, but {PACK_NAME} says "
                        f"{shard.blake2b}; run `python -m apps.data pack` again."
                    )


def open_pack(uri: str) -> Pack:
    """Open a finished pack.

    Raises NotFoundError when there is none, CorruptError when it is unfinished, or a shard is
    missing or has another size than pack.json says.
    """
    try:
        saved = storage.read_json(storage.join(uri, PACK_NAME))
    except NotFoundError as error:
        raise NotFoundError(
            f"{uri} holds no {PACK_NAME}; expected a folder made by `python -m apps.data pack`."
        ) from error
    info = PackInfo.from_dict(saved)
    commit = storage.read_commit(uri)
    if commit is None or commit.get("digest") != info.digest:
        raise CorruptError(
            f"{uri} is not finished; run the same `python -m apps.data pack` command again."
        )
    for split in info.splits.values():
        for shard in split.shards:
            num_bytes = storage.size_bytes(storage.join(uri, shard.name))
            if num_bytes != shard.num_bytes:
                raise CorruptError(
                    f"{uri}/{shard.name} has {num_bytes} bytes, but {PACK_NAME} says "
                    f"{shard.num_bytes}; run `python -m apps.data pack` again."
                )
    return Pack(uri, info)


def to_table(rows: Rows) -> pa.Table:
    """Rows as an Arrow table of `schema.packed_schema`; `from_table` is the inverse."""
    max_length = rows.input_ids.shape[1]
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(rows.input_ids.reshape(-1)), max_length),
        pa.FixedSizeListArray.from_arrays(pa.array(rows.loss_mask.reshape(-1)), max_length),
        pa.array(rows.lengths, pa.list_(pa.int32())),
    ]
    return pa.Table.from_arrays(columns, schema=packed_schema(max_length))


def from_table(table: pa.Table, max_length: int) -> Rows:
    """Rows of an Arrow table; raises CorruptError when it has another schema."""
    if not table.schema.equals(packed_schema(max_length)):
        raise CorruptError(
            f"Packed rows with schema {table.schema.to_string(show_schema_metadata=False)}; "
            f"expected {packed_schema(max_length).to_string()}."
        )
    shape = (table.num_rows, max_length)
    ids, mask, lengths = (table.column(i).combine_chunks() for i in range(3))
    offsets = lengths.offsets.to_numpy()
    values = lengths.values.to_numpy()
    return Rows(
        ids.flatten().to_numpy().reshape(shape),
        mask.flatten().to_numpy(zero_copy_only=False).reshape(shape),
        [values[a:b] for a, b in pairwise(offsets)],
    )


def write_shard(uri: str, name: str, rows: Rows) -> ShardInfo:
    """Write one Parquet shard; equal rows give equal bytes."""
    shard_uri = storage.join(uri, name)
    with storage.atomic_file(shard_uri) as handle:
        pq.write_table(
            to_table(rows),
            handle,
            row_group_size=_ROWS_PER_GROUP,
            compression="zstd",
            use_dictionary=False,
            column_encoding={"input_ids.list.element": "BYTE_STREAM_SPLIT"},
        )
    return ShardInfo(
        name, len(rows.lengths), storage.size_bytes(shard_uri), storage.digest_file(shard_uri)
    )


def describe_split(rows: Iterable[Rows], shards: Sequence[ShardInfo], max_length: int) -> SplitInfo:
    """Totals over the rows of a split's shards."""
    num_rows = num_segments = num_tokens = num_supervised = 0
    for part in rows:
        num_rows += len(part.lengths)
        num_segments += sum(len(lengths) for lengths in part.lengths)
        num_tokens += sum(int(lengths.sum()) for lengths in part.lengths)
        num_supervised += int(part.loss_mask.sum())
    fill = num_tokens / (num_rows * max_length) if num_rows else 0.0
    return SplitInfo(num_rows, num_segments, num_tokens, num_supervised, fill, tuple(shards))


def finish_pack(uri: str, info: PackInfo, **extra: str) -> None:
    """Write pack.json, then the commit marker (with `extra` in it); call it last."""
    storage.write_json(storage.join(uri, PACK_NAME), info.to_dict())
    storage.commit(uri, {"digest": info.digest, **extra})


def write_pack(
    uri: str,
    splits: dict[str, Rows],
    template: ChatTemplate,
    tokenizer_digest: str,
    pad_id: int = 0,
) -> PackInfo:
    """Write a whole pack of one shard a split, for rows that fit in memory."""
    max_length = splits["train"].input_ids.shape[1]
    described: dict[str, SplitInfo] = {}
    for split in SPLITS:
        rows = splits.get(split, empty_rows(max_length))
        shards = [write_shard(uri, f"{split}/00000.parquet", rows)] if rows.lengths else []
        described[split] = describe_split([rows], shards, max_length)
    info = PackInfo(max_length, pad_id, "pack", tokenizer_digest, template, described)
    finish_pack(uri, info)
    return info


def empty_rows(max_length: int) -> Rows:
    return Rows(np.zeros((0, max_length), np.int32), np.zeros((0, max_length), np.bool_), [])


def fill_rows(
    segments: Sequence[Sequence[tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]]],
    max_length: int,
    pad_id: int,
) -> Rows:
    """Lay (ids, mask) segments end to end, one list of segments a row."""
    input_ids = np.full((len(segments), max_length), pad_id, np.int32)
    loss_mask = np.zeros((len(segments), max_length), np.bool_)
    lengths: list[npt.NDArray[np.int32]] = []
    for row, parts in enumerate(segments):
        at = 0
        for ids, mask in parts:
            input_ids[row, at : at + len(ids)] = ids
            loss_mask[row, at : at + len(ids)] = mask
            at += len(ids)
        lengths.append(np.array([len(ids) for ids, _ in parts], np.int32))
    return Rows(input_ids, loss_mask, lengths)
