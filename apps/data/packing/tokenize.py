"""One unit of `pack`: conversations of a few row groups become segments of token ids.

Reads a range of row groups of a Parquet file, writes `train.parquet` and `val.parquet` beside each
other: ids, mask, and a draw in [0, 1) from the conversation's id that decides, for folders with a
fractional weight, whether it is taken.
"""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers

from apps.common.errors import InputError
from apps.common.files import storage
from apps.common.packs import SPLITS
from apps.common.text.conversation import ChatTemplate, Message, ToolSchemas
from apps.common.text.hidden_tokens import HiddenTokens
from apps.common.text.tokenizer import break_control_tokens
from apps.data.ledger import Counts, add_to
from apps.data.packing.mix import RowGroups
from apps.data.packing.segments import Cut, Cutter, OverLong, Segment

_BATCH_CONVERSATIONS = 128
_COLUMNS = ("id", "source_id", "messages", "tools")
_SEGMENTS = pa.schema(
    [
        pa.field("ids", pa.list_(pa.int32()), nullable=False),
        pa.field("mask", pa.list_(pa.bool_()), nullable=False),
        pa.field("draw", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeArgs:
    """Conversations of a file, or `inline` ones that all go to train/."""

    max_length: int
    over_long: OverLong
    val_percent: float
    template: ChatTemplate
    tokenizer: str
    """its digest"""
    control_tokens: tuple[str, ...]
    file: RowGroups | None = None
    inline: tuple[tuple[Message, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """A conversation as it comes in."""

    id: str
    source_id: str
    messages: tuple[Message, ...]
    tools: ToolSchemas | None = None


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
    tool_turns_not_shown: int = 0
    """messages of tools, and calls of them, that the template cannot show"""
    dropped_conversations: Counts = field(default_factory=Counts)
    dropped_rounds: Counts = field(default_factory=Counts)

    def count(self, cut: Cut) -> None:
        num_dropped = sum(cut.dropped.values())
        self.conversations += 1
        self.rounds += cut.num_rounds
        self.kept_rounds += cut.num_rounds - num_dropped
        self.truncated_rounds += cut.num_truncated
        self.tool_turns_not_shown += cut.num_tool_turns
        for rule, amount in cut.dropped.items():
            add_to(self.dropped_rounds, rule, amount)
        if cut.segments:
            self.kept_conversations += 1
        else:
            add_to(self.dropped_conversations, next(iter(cut.dropped), "no_messages"), 1)

    def add(self, other: "TokenLedger") -> None:
        self.conversations += other.conversations
        self.rounds += other.rounds
        self.kept_conversations += other.kept_conversations
        self.kept_rounds += other.kept_rounds
        self.truncated_rounds += other.truncated_rounds
        self.control_tokens_broken += other.control_tokens_broken
        self.tool_turns_not_shown += other.tool_turns_not_shown
        for rule, amount in other.dropped_conversations.items():
            add_to(self.dropped_conversations, rule, amount)
        for rule, amount in other.dropped_rounds.items():
            add_to(self.dropped_rounds, rule, amount)


@dataclass(frozen=True, slots=True)
class SplitCounts:
    segments: int
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedUnit:
    """The manifest of a unit."""

    ledger: TokenLedger
    splits: dict[str, SplitCounts]


def tokenize_unit(args: TokenizeArgs, folder: str, *, tokenizer_json: str) -> TokenizedUnit:
    """Segments of one unit."""
    backend = _backend(tokenizer_json)
    cutter = Cutter(args.template, backend, args.max_length, args.over_long)
    hidden = HiddenTokens.of(backend)
    ledger = TokenLedger()
    segments: dict[str, _Segments] = {split: _Segments() for split in SPLITS}
    for batch in _batches(args):
        batch = [_without_control_tokens(one, args.control_tokens, hidden, ledger) for one in batch]
        cuts = cutter.cut([one.messages for one in batch], [one.tools for one in batch])
        for read, cut in zip(batch, cuts, strict=True):
            ledger.count(cut)
            split = "train" if args.inline else split_of(read.source_id, args.val_percent)
            for segment in cut.segments:
                segments[split].append(segment, draw(read.id))
    splits = {split: found.write(folder, split) for split, found in segments.items()}
    return TokenizedUnit(ledger=ledger, splits=splits)


def split_of(source_id: str, val_percent: float) -> Literal["train", "val"]:
    """`val` for `val_percent` of all source ids, by hash: segments of one source stay together."""
    return "val" if draw(f"split:{source_id}") * 100 < val_percent else "train"


def draw(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def _batches(args: TokenizeArgs) -> Iterator[list[Read]]:
    if args.file is not None:
        yield from read_groups(args.file)
    else:
        yield [
            Read(f"inline-{i}", f"inline-{i}", messages) for i, messages in enumerate(args.inline)
        ]


def read_groups(groups: RowGroups) -> Iterator[list[Read]]:
    """Their conversations, a few at a time."""
    fs, path = storage.filesystem(groups.uri)
    with pq.ParquetFile(path, filesystem=fs) as file:
        columns = [c for c in _COLUMNS if c in file.schema_arrow.names]
        wanted = range(groups.first, groups.stop)
        batches = file.iter_batches(_BATCH_CONVERSATIONS, wanted, columns, use_threads=False)
        first_row = sum(file.metadata.row_group(group).num_rows for group in range(groups.first))
        for batch in batches:
            rows: list[dict[str, Any]] = batch.to_pylist()
            for i, row in enumerate(rows, first_row):
                _check_row(row, f"{groups.uri}, row {i:,}")
            yield [_read(row, f"{groups.blake2b}#{first_row + i}") for i, row in enumerate(rows)]
            first_row += batch.num_rows


def _check_row(row: dict[str, Any], place: str) -> None:
    """Raises InputError for what only other makers leave empty."""
    messages: list[dict[str, Any] | None] = row["messages"] or []
    for message in messages:
        if message is None or message["role"] is None or message["content"] is None:
            raise InputError(
                f"{place} has a message without role or content; put the file through "
                "`python -m apps.data clean` first, which reads it or sets it aside."
            )


def _read(row: dict[str, Any], fallback_id: str) -> Read:
    identifier = row.get("id") or row.get("source_id") or fallback_id
    messages = tuple(map(_message, row["messages"] or ()))
    tools = row.get("tools")
    functions: ToolSchemas | None = json.loads(tools) if tools else None
    return Read(identifier, row.get("source_id") or identifier, messages, functions)


def _message(saved: dict[str, Any]) -> Message:
    """Folders of other makers have no more than role and content."""
    if len(saved) == 2:
        return Message(saved["role"], saved["content"])
    weight = saved.get("weight")
    return Message(
        saved["role"],
        saved["content"],
        is_learned=weight is None or weight > 0,
        tool_calls=saved.get("tool_calls"),
        tool_call_id=saved.get("tool_call_id"),
        name=saved.get("name"),
    )


def _without_control_tokens(
    read: Read, control_tokens: Sequence[str], hidden: HiddenTokens | None, ledger: TokenLedger
) -> Read:
    """Whatever of a conversation a template may show."""
    tokens = tuple(control_tokens)

    def broken(text: str | None) -> str | None:
        if not text:
            return text
        text, num_broken = break_control_tokens(text, tokens, hidden)
        ledger.control_tokens_broken += num_broken
        return text

    messages = tuple(_changed(message, broken) for message in read.messages)
    if read.tools is None:
        return replace(read, messages=messages)
    shown = json.dumps(read.tools, ensure_ascii=False)
    tools = read.tools if (told := broken(shown)) == shown else json.loads(told or "")
    return replace(read, messages=messages, tools=tools)


def _changed(message: Message, change: Callable[[str | None], str | None]) -> Message:
    """The message with other texts; itself when they are equal."""
    old = (message.content, message.tool_calls, message.tool_call_id, message.name)
    new = tuple(map(change, old))
    if new == old:
        return message
    content, tool_calls, tool_call_id, name = new
    return replace(
        message,
        content=content or "",
        tool_calls=tool_calls,
        tool_call_id=tool_call_id,
        name=name,
    )


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

    def write(self, folder: str, split: str) -> SplitCounts:
        if not self._ids:
            return SplitCounts(0, 0)
        offsets = np.cumsum([0, *(len(ids) for ids in self._ids)], dtype=np.int32)
        columns = [
            pa.ListArray.from_arrays(offsets, np.concatenate(self._ids)),
            pa.ListArray.from_arrays(offsets, np.concatenate(self._masks)),
            pa.array(self._draws, pa.float64()),
        ]
        with storage.atomic_file(storage.join(folder, f"{split}.parquet")) as handle:
            pq.write_table(pa.Table.from_arrays(columns, schema=_SEGMENTS), handle)
        return SplitCounts(len(self._ids), int(offsets[-1]))


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
