"""Conversations that repeat another one, decided over the whole input at once.

Every range writes small keys (`keys.py`); one pass over them decides. Of two equals the longer
stays, and of two as long the one that comes first in the input: never the one that happened to
arrive first.

    id  said        goes as
    a   Hi? Yes.    duplicate of b: it is the beginning of b
    b   Hi? Yes. And then? That.
    b   Hi? Yes.    duplicate_id of b, in the same file only: all that it says stands there
    b   Who? Me.    stays, whatever its id: nobody else says so
"""

# pyarrow is partly unknown:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from apps.common.files import storage
from apps.data.duplicates.keys import KeyTable
from apps.data.duplicates.near import near_duplicates
from apps.data.rules.profiles import Rules
from apps.data.write import tables

RULES = ("duplicate_id", "duplicate", "duplicate_opening", "near_duplicate")


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
    table = KeyTable([kept.folder for kept in units])
    losers = _Losers(table.numbers("chars"))
    for rule, pairs in _rules(table, rules, losers, starts):
        losers.drop(rule, *pairs)
    messages, num_bytes = table.numbers("messages"), table.numbers("bytes")
    ids = _ids({winner for _, winner in losers.gone.values()}, units, starts)
    rows: list[dict[str, str | int]] = []
    totals: dict[str, Repeated] = {}
    for row in sorted(losers.gone):
        rule, winner = losers.gone[row]
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
    names: dict[int, str] = {}
    held, ids = -1, pa.array([], pa.string())
    for row in sorted(rows):
        unit = _unit_of(row, starts)
        if unit != held:
            uri = storage.join(units[unit].folder, "keys.parquet")
            held, ids = unit, tables.read(uri, ["id"])["id"].combine_chunks()
        names[row] = ids[row - int(starts[unit])].as_py()
    return names


class _Losers:
    """Rows that are gone, and the order in which rows win: longest first, then input order."""

    def __init__(self, chars: np.ndarray) -> None:
        order = np.lexsort((np.arange(len(chars)), -chars.astype(np.int64)))
        self.rank = np.empty(len(chars), dtype=np.int64)
        self.rank[order] = np.arange(len(chars))
        self.alive = np.ones(len(chars), dtype=bool)
        self.gone: dict[int, tuple[str, int]] = {}

    def drop(self, rule: str, losers: np.ndarray, winners: np.ndarray) -> None:
        self.alive[losers] = False
        for loser, winner in zip(losers.tolist(), winners.tolist(), strict=True):
            self.gone[loser] = (rule, winner)

    def best_first(self) -> np.ndarray:
        rows = np.flatnonzero(self.alive)
        return rows[np.argsort(self.rank[rows])]


Pairs = tuple[np.ndarray, np.ndarray]


def _rules(
    table: KeyTable, rules: Rules, losers: _Losers, starts: np.ndarray
) -> Iterator[tuple[str, Pairs]]:
    if rules.duplicate_id == "drop":
        same = _same(table.numbers("source_key"), losers)
        yield "duplicate_id", _contained(table, *same, starts)
    if rules.duplicate == "drop":
        values, counts = table.prefixes()
        ends = np.cumsum(counts)
        full = values[ends - 1] if len(ends) else values
        yield "duplicate", _same(full, losers)
        yield "duplicate", _continued(values, counts, full, losers)
    if rules.duplicate_opening == "drop":
        yield "duplicate_opening", _same(table.numbers("opening"), losers)
    if rules.near_duplicate:
        alive = losers.best_first()
        yield "near_duplicate", near_duplicates(table, rules.near_duplicate, alive, starts)


def _same(key: np.ndarray, losers: _Losers) -> Pairs:
    """Rows with another's key, and the best row of each; key 0 is no key.

    With the keys `[5, 8, 5, 0, 5]` of rows whose ranks are `[2, 0, 1, 3, 4]`, rows 0 and 4 go and
    row 2 is the winner of both.
    """
    rows = np.flatnonzero(losers.alive & (key != 0))
    order = np.lexsort((losers.rank[rows], key[rows]))
    rows = rows[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = key[rows[1:]] != key[rows[:-1]]
    winners = rows[np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))]
    return rows[~first], winners[~first]


def _contained(table: KeyTable, rows: np.ndarray, winners: np.ndarray, starts: np.ndarray) -> Pairs:
    """Those of the rows of which every message stands in the winner."""
    said = table.messages(np.unique(np.concatenate((rows, winners))), starts)
    pairs = zip(rows.tolist(), winners.tolist(), strict=True)
    contained = np.array([said[row] <= said[winner] for row, winner in pairs], dtype=bool)
    return rows[contained], winners[contained]


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
