"""One unit of `pack`: conversations of a few row groups become segments of token ids.

Reads a range of row groups of a Parquet file, writes `train.parquet` and `val.parquet` beside each
other: ids, mask, and a draw in [0, 1) from the conversation's id that decides, for folders with a
fractional weight, whether it is taken.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers

from apps.common.files import storage
from apps.common.packs import SPLITS
from apps.common.text.conversation import ChatTemplate, Message
from apps.common.text.tokenizer import break_control_tokens
from apps.data.packing.segments import Cut, Cutter, Segment
from apps.data.units import Json

_BATCH_CONVERSATIONS = 128
_SEGMENTS = pa.schema(
    [
        pa.field("ids", pa.list_(pa.int32()), nullable=False),
        pa.field("mask", pa.list_(pa.bool_()), nullable=False),
        pa.field("draw", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Read:
    """A conversation as it comes in."""

    id: str
    source_id: str
    messages: tuple[Message, ...]


@dataclass(slots=True)
class TokenLedger:
    """What became of every conversation and round: read = kept + dropped, for both."""

    conversations: int = 0
    rounds: int = 0
    kept_conversations: int = 0
    kept_rounds: int = 0
    """whole or truncated"""
    truncated_rounds: int = 0
    """of the kept ones, those whose answer was cut at max_length"""
    control_tokens_broken: int = 0
    dropped_conversations: Counter[str] = field(default_factory=Counter)
    dropped_rounds: Counter[str] = field(default_factory=Counter)

    def count(self, cut: Cut) -> None:
        num_dropped = sum(cut.dropped.values())
        self.conversations += 1
        self.rounds += cut.num_rounds
        self.kept_rounds += cut.num_rounds - num_dropped
        self.truncated_rounds += cut.num_truncated
        self.dropped_rounds.update(cut.dropped)
        if cut.segments:
            self.kept_conversations += 1
        else:
            self.dropped_conversations[next(iter(cut.dropped), "no_messages")] += 1

    def add(self, saved: Json) -> None:
        for name, value in saved.items():
            if isinstance(value, dict):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


def tokenize_unit(args: Json, folder: str, *, tokenizer_json: str) -> Json:
    """Segments of one unit; see `pack.tokenize_units` for the arguments."""
    cutter = Cutter(
        ChatTemplate.from_dict(args["template"]),
        _backend(tokenizer_json),
        args["max_length"],
        args["over_long"],
    )
    ledger = TokenLedger()
    found: dict[str, _Segments] = {split: _Segments() for split in SPLITS}
    for batch in _batches(args):
        contents = [_without_control_tokens(read, args["control_tokens"], ledger) for read in batch]
        for read, cut in zip(batch, cutter.cut(contents), strict=True):
            ledger.count(cut)
            split = "train" if "inline" in args else split_of(read.source_id, args["val_percent"])
            for segment in cut.segments:
                found[split].append(segment, draw(read.id))
    return {
        "ledger": {
            name: dict(value) if isinstance(value, Counter) else value
            for name, value in ((n, getattr(ledger, n)) for n in TokenLedger.__slots__)
        },
        "splits": {split: segments.write(folder, split) for split, segments in found.items()},
    }


def split_of(source_id: str, val_percent: float) -> str:
    """`val` for `val_percent` of all source ids, by hash: segments of one source stay together."""
    return "val" if draw(f"split:{source_id}") * 100 < val_percent else "train"


def draw(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def _batches(args: Json) -> Iterator[list[Read]]:
    if "inline" in args:
        yield [
            Read(f"inline-{i}", f"inline-{i}", tuple(Message(**m) for m in messages))
            for i, messages in enumerate(args["inline"])
        ]
        return
    fs, path = storage.filesystem(args["file"])
    with pq.ParquetFile(path, filesystem=fs) as file:
        columns = [c for c in ("id", "source_id", "messages") if c in file.schema_arrow.names]
        batches = file.iter_batches(
            _BATCH_CONVERSATIONS, range(*args["row_groups"]), columns, use_threads=False
        )
        groups = range(args["row_groups"][0])
        first_row = sum(file.metadata.row_group(group).num_rows for group in groups)
        for batch in batches:
            yield [_read(row, f"{args['blake2b']}#{first_row + i}") for i, row in _rows(batch)]
            first_row += batch.num_rows


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[int, Json]]:
    return enumerate(batch.to_pylist())


def _read(row: Json, fallback_id: str) -> Read:
    identifier = row.get("id") or row.get("source_id") or fallback_id
    messages = tuple(Message(m["role"], m["content"]) for m in row["messages"])
    return Read(identifier, row.get("source_id") or identifier, messages)


def _without_control_tokens(
    read: Read, control_tokens: Sequence[str], ledger: TokenLedger
) -> tuple[Message, ...]:
    messages: list[Message] = []
    for message in read.messages:
        content, num_broken = break_control_tokens(message.content, tuple(control_tokens))
        messages.append(Message(message.role, content) if num_broken else message)
        ledger.control_tokens_broken += num_broken
    return tuple(messages)


@lru_cache(maxsize=2)
def _backend(tokenizer_json: str) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(tokenizer_json)


class _Segments:
    """Segments on their way to a file."""

    def __init__(self) -> None:
        self._ids: list[npt.NDArray[np.int32]] = []
        self._masks: list[npt.NDArray[np.bool_]] = []
        self._draws: list[float] = []

    def append(self, segment: Segment, conversation_draw: float) -> None:
        self._ids.append(segment.ids)
        self._masks.append(segment.mask)
        self._draws.append(conversation_draw)

    def write(self, folder: str, split: str) -> Json:
        if not self._ids:
            return {"segments": 0, "tokens": 0}
        offsets = np.cumsum([0, *(len(ids) for ids in self._ids)], dtype=np.int32)
        columns = [
            pa.ListArray.from_arrays(offsets, np.concatenate(self._ids)),
            pa.ListArray.from_arrays(offsets, np.concatenate(self._masks)),
            pa.array(self._draws, pa.float64()),
        ]
        with storage.atomic_file(storage.join(folder, f"{split}.parquet")) as handle:
            pq.write_table(pa.Table.from_arrays(columns, schema=_SEGMENTS), handle)
        return {"segments": len(self._ids), "tokens": int(offsets[-1])}


def read_segments(
    uri: str, fraction: float
) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]]:
    """(ids, mask) of the segments of a unit whose conversation's draw is below `fraction`."""
    fs, path = storage.filesystem(uri)
    with pq.ParquetFile(path, filesystem=fs) as file:
        table: Any = file.read(use_threads=False)
    ids, masks = (table.column(name).combine_chunks() for name in ("ids", "mask"))
    offsets = ids.offsets.to_numpy()
    all_ids, all_masks = ids.values.to_numpy(), masks.values.to_numpy(zero_copy_only=False)
    wanted = np.flatnonzero(table.column("draw").to_numpy() < fraction)
    spans = [(offsets[i], offsets[i + 1]) for i in wanted]
    return [(all_ids[a:b], all_masks[a:b]) for a, b in spans]
