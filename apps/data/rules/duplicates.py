"""Conversations that repeat another one, decided over the whole input at once.

Every range writes small keys (8 bytes a message, and MinHash bands when asked); one pass over the
keys decides. Of two equals the longer stays, and of two as long the one that comes first in the
input: never the one that happened to arrive first.
"""

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

from apps.common.files import storage
from apps.data.read.records import Record
from apps.data.rules.profiles import Rules
from apps.data.write import tables

RULES = ("duplicate_id", "duplicate", "duplicate_opening", "near_duplicate")
SHINGLE_WORDS = 5
NUM_PERMUTATIONS = 128
NUM_BANDS = 32
"""Bands of 4: two conversations of similarity .8 meet with probability 1 - 5e-8, of .5 with .87."""
_BANDS_READ = 8
"""Bands in one column, and so in memory at a time."""
_BANDS = [f"bands_{i:02d}" for i in range(0, NUM_BANDS, _BANDS_READ)]
_SEED = 42
_MAX_COMPARED = 50
"""Of the rows that share a band's value, a row is compared with the 50 best that stay."""


def schema_of(*, with_signature: bool) -> pa.Schema:
    fields = [
        pa.field("id", pa.string()),
        pa.field("source_key", pa.uint64()),
        pa.field("prefixes", pa.list_(pa.uint64())),
        pa.field("opening", pa.uint64()),
        pa.field("chars", pa.int64()),
        pa.field("messages", pa.int64()),
        pa.field("bytes", pa.int64()),
    ]
    if with_signature:
        fields.append(pa.field("signature", pa.binary(2 * NUM_PERMUTATIONS)))
        fields += [pa.field(name, pa.binary(8 * _BANDS_READ)) for name in _BANDS]
    return pa.schema(fields)


def keys(record: Record, *, with_signature: bool) -> dict[str, Any]:
    """Digests of the conversation up to each message, and of its first round; its MinHash."""
    texts = [normalized(turn.text) for turn in record.turns]
    digest = hashlib.blake2b(digest_size=8)
    prefixes: list[int] = []
    opening, rounds = 0, 0
    for turn, text in zip(record.turns, texts, strict=True):
        digest.update(f"{turn.role}\0{text}\0".encode("utf-8", "surrogatepass"))
        prefixes.append(int.from_bytes(digest.digest(), "little"))
        if turn.role == "assistant" and rounds == 0:
            opening, rounds = prefixes[-1], 1
    row: dict[str, Any] = {
        "id": record.id,
        "source_key": _key(record.source_id) if record.source_id else 0,
        "prefixes": prefixes,
        "opening": opening,
        "chars": sum(len(turn.text) for turn in record.turns),
    }
    return row | (_minhash(" ".join(texts)) if with_signature else {})


def normalized(text: str) -> str:
    """One case, one kind of blank, one form of each character."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _minhash(text: str) -> dict[str, Any]:
    words = text.split(" ")
    runs = [words[i:] for i in range(SHINGLE_WORDS)]
    shingles = list(map(" ".join, zip(*runs, strict=False))) or [text]
    hashed = RMinHash(num_perm=NUM_PERMUTATIONS, seed=_SEED)
    hashed.update(shingles)
    signature = np.array(hashed.digest(), dtype=np.uint64)
    bands = signature.reshape(NUM_BANDS, -1)
    mixed = np.zeros(NUM_BANDS, dtype=np.uint64)
    for column in bands.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    groups = [group.tobytes() for group in mixed.astype("<u8").reshape(-1, _BANDS_READ)]
    low_bits = (signature & np.uint64(0xFFFF)).astype("<u2").tobytes()
    return {"signature": low_bits, **dict(zip(_BANDS, groups, strict=True))}


class _Keys:
    """The keys of all ranges, column by column, as one long table in input order."""

    def __init__(self, folders: list[str]) -> None:
        self._folders = folders

    def numbers(self, name: str) -> np.ndarray:
        columns = [self._read(folder, name).to_numpy() for folder in self._folders]
        return np.concatenate(columns) if columns else np.zeros(0, dtype=np.uint64)

    def prefixes(self) -> tuple[np.ndarray, np.ndarray]:
        """All prefix digests, and how many each row has."""
        parts = [self._read(folder, "prefixes") for folder in self._folders]
        if not parts:
            return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
        values = np.concatenate([part.flatten().to_numpy() for part in parts])
        counts = np.concatenate([np.diff(part.offsets.to_numpy()) for part in parts])
        return values, counts.astype(np.int64)

    def bands(self, name: str) -> np.ndarray:
        """[rows, bands] of one column of bands."""
        raw = b"".join(_bytes(self._read(folder, name)) for folder in self._folders)
        return np.frombuffer(raw, dtype="<u8").reshape(-1, _BANDS_READ)

    def signatures(self, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """[rows, permutations] of some rows only."""
        found = np.empty((len(rows), NUM_PERMUTATIONS), dtype="<u2")
        for i, folder in enumerate(self._folders):
            own = np.flatnonzero((rows >= starts[i]) & (rows < starts[i + 1]))
            if len(own):
                column = self._read(folder, "signature").take(pa.array(rows[own] - starts[i]))
                found[own] = np.frombuffer(_bytes(column), dtype="<u2").reshape(len(own), -1)
        return found

    def _read(self, folder: str, name: str) -> pa.Array:
        table = tables.read(storage.join(folder, "keys.parquet"), [name])
        return table[name].combine_chunks()


def _bytes(column: pa.Array) -> bytes:
    """All values of a column of fixed size, end to end."""
    start, width = column.offset, column.type.byte_width
    return column.buffers()[1][start * width : (start + len(column)) * width].to_pybytes()


@dataclass(frozen=True, slots=True)
class Kept:
    """A range's folder and how many conversations the other rules kept of it."""

    folder: str
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DecideArgs:
    ranges: tuple[Kept, ...]
    rules: Rules


@dataclass(slots=True)
class Repeated:
    """What one rule takes out: the ledger's correction."""

    records: int = 0
    messages: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    uri: str
    """file of the rows that go"""
    totals: dict[str, Repeated]
    """by rule"""
    folders: tuple[str, ...]
    """the ranges that kept something, in input order"""


def decide(args: DecideArgs, folder: str) -> Decided:
    """Which rows of which ranges go, by which rule; written to <folder>/duplicates.parquet."""
    rules = args.rules
    units = [kept for kept in args.ranges if kept.rows]
    starts = np.cumsum([0] + [kept.rows for kept in units])
    table = _Keys([kept.folder for kept in units])
    losers = _Losers(table.numbers("chars"))
    for rule, pairs in _rules(table, rules, losers, starts):
        losers.drop(rule, *pairs)
    messages, num_bytes = table.numbers("messages"), table.numbers("bytes")
    ids = _ids({winner for _, winner in losers.found.values()}, units, starts)
    rows: list[dict[str, str | int]] = []
    totals: dict[str, Repeated] = {}
    for row in sorted(losers.found):
        rule, winner = losers.found[row]
        unit = _unit_of(row, starts)
        place = {"folder": units[unit].folder, "row": row - int(starts[unit])}
        rows.append({**place, "rule": rule, "detail": ids[winner]})
        total = totals.setdefault(rule, Repeated())
        total.records += 1
        total.messages += int(messages[row])
        total.bytes += int(num_bytes[row])
    uri = storage.join(folder, "duplicates.parquet")
    tables.write(uri, [pa.Table.from_pylist(rows, schema=_LOSERS)], _LOSERS)
    return Decided(uri=uri, totals=totals, folders=tuple(kept.folder for kept in units))


_LOSERS = pa.schema(
    [
        pa.field("folder", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("rule", pa.string()),
        pa.field("detail", pa.string()),
    ]
)


def _unit_of(row: int, starts: np.ndarray) -> int:
    return int(np.searchsorted(starts, row, side="right")) - 1


def _ids(rows: set[int], units: list[Kept], starts: np.ndarray) -> dict[int, str]:
    """Ids of some rows; each unit's are read once."""
    found: dict[int, str] = {}
    held, ids = -1, pa.array([], pa.string())
    for row in sorted(rows):
        unit = _unit_of(row, starts)
        if unit != held:
            uri = storage.join(units[unit].folder, "keys.parquet")
            held, ids = unit, tables.read(uri, ["id"])["id"].combine_chunks()
        found[row] = ids[row - int(starts[unit])].as_py()
    return found


class _Losers:
    """Rows that are gone, and the order in which rows win: longest first, then input order."""

    def __init__(self, chars: np.ndarray) -> None:
        order = np.lexsort((np.arange(len(chars)), -chars.astype(np.int64)))
        self.rank = np.empty(len(chars), dtype=np.int64)
        self.rank[order] = np.arange(len(chars))
        self.alive = np.ones(len(chars), dtype=bool)
        self.found: dict[int, tuple[str, int]] = {}

    def drop(self, rule: str, losers: np.ndarray, winners: np.ndarray) -> None:
        self.alive[losers] = False
        for loser, winner in zip(losers.tolist(), winners.tolist(), strict=True):
            self.found[loser] = (rule, winner)


Pairs = tuple[np.ndarray, np.ndarray]


def _rules(
    table: _Keys, rules: Rules, losers: _Losers, starts: np.ndarray
) -> Iterator[tuple[str, Pairs]]:
    if rules.duplicate_id == "drop":
        yield "duplicate_id", _same(table.numbers("source_key"), losers)
    if rules.duplicate == "drop":
        values, counts = table.prefixes()
        ends = np.cumsum(counts)
        full = values[ends - 1] if len(ends) else values
        yield "duplicate", _same(full, losers)
        yield "duplicate", _continued(values, counts, full, losers)
    if rules.duplicate_opening == "drop":
        yield "duplicate_opening", _same(table.numbers("opening"), losers)
    if rules.near_duplicate:
        yield "near_duplicate", _near(table, rules.near_duplicate, losers, starts)


def _same(key: np.ndarray, losers: _Losers) -> Pairs:
    """Rows with another's key, and the best row of each; key 0 is no key."""
    rows = np.flatnonzero(losers.alive & (key != 0))
    order = np.lexsort((losers.rank[rows], key[rows]))
    rows = rows[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = key[rows[1:]] != key[rows[:-1]]
    winners = rows[np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))]
    return rows[~first], winners[~first]


def _continued(values: np.ndarray, counts: np.ndarray, full: np.ndarray, losers: _Losers) -> Pairs:
    """Rows whose whole text is the beginning of another's, and the longest such other."""
    owners = np.repeat(np.arange(len(counts)), counts)
    last = np.zeros(len(values), dtype=bool)
    last[np.cumsum(counts) - 1] = True
    proper = ~last & losers.alive[owners]
    values, owners = values[proper], owners[proper]
    order = np.lexsort((losers.rank[owners], values))
    values, owners = values[order], owners[order]
    rows = np.flatnonzero(losers.alive)
    at = np.searchsorted(values, full[rows])
    at_safe = np.minimum(at, max(0, len(values) - 1))
    hit = (at < len(values)) & (values[at_safe] == full[rows]) if len(values) else at < 0
    return rows[hit], owners[at_safe[hit]] if len(values) else rows[hit]


def _near(table: _Keys, threshold: float, losers: _Losers, starts: np.ndarray) -> Pairs:
    """Rows similar to a better one that stays.

    The best rows come first. A row meets those that share a band with it and stay so far, and goes
    when its signature is similar enough to one of theirs; so nothing is held for what is gone.
    """
    rows, buckets = _buckets(table, losers)
    signatures = table.signatures(rows, starts)
    staying: dict[int, list[int]] = {}
    found: list[tuple[int, int]] = []
    for i, own in enumerate(_own_buckets(buckets)):
        met = sorted(set[int]().union(*[staying[bucket] for bucket in own if bucket in staying]))
        same = (signatures[met] == signatures[i]).sum(axis=1) >= threshold * NUM_PERMUTATIONS
        if same.any():
            found.append((i, met[int(same.argmax())]))
            continue
        for bucket in own:
            others = staying.setdefault(bucket, [])
            if len(others) < _MAX_COMPARED:
                others.append(i)
    pairs = rows[np.array(found, dtype=np.int64).reshape(-1, 2)]
    return pairs[:, 0], pairs[:, 1]


def _own_buckets(buckets: np.ndarray) -> Iterator[list[int]]:
    for start in range(0, buckets.shape[1], 4096):
        for own in buckets[:, start : start + 4096].T.tolist():
            yield [bucket for bucket in own if bucket >= 0]


def _buckets(table: _Keys, losers: _Losers) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share a band with another, best first, and [bands, rows]: the bucket, -1 for none.

    A few bands are read at a time.
    """
    rows = np.flatnonzero(losers.alive)
    rows = rows[np.argsort(losers.rank[rows])]
    buckets = np.full((NUM_BANDS, len(rows)), -1, dtype=np.int32)
    num_buckets = 0
    for group, name in enumerate(_BANDS):
        for i, key in enumerate(table.bands(name)[rows].T):
            own = _shared_values(key)
            band = buckets[group * _BANDS_READ + i]
            band[own >= 0] = num_buckets + own[own >= 0]
            num_buckets += int(own.max(initial=-1)) + 1
    shared = (buckets >= 0).any(axis=0)
    return rows[shared], buckets[:, shared]


def _shared_values(key: np.ndarray) -> np.ndarray:
    """The number, from 0, of each value that more than one row has; -1 for the others."""
    order = np.argsort(key, kind="stable")
    is_first = np.ones(len(key), dtype=bool)
    is_first[1:] = key[order[1:]] != key[order[:-1]]
    is_shared = ~(is_first & np.append(is_first[1:], True))
    numbers = np.cumsum(is_first & is_shared) - 1
    found = np.empty(len(key), dtype=np.int32)
    found[order] = np.where(is_shared, numbers, -1)
    return found
