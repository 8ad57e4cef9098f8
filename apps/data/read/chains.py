"""Split dumps: pieces of one conversation that can be put together again.

Published splits cut long conversations and repeat the last answer of a piece at the head of the
next one: `abc_0` ends with the answer with which `abc_1` begins. Such pieces become one
conversation again when their ids share the stem and the answers are equal to the byte. What the
system says before all others stands in the first piece alone, or is the same in all.

A greeting that many conversations share proves nothing, so no other piece of the stem may begin
with the answer. Where later pieces begin with a question, the ids merely count conversations; there
the answer must be long, or come after another round. A piece that begins with an answer and has no
predecessor is marked as a continuation.

    x_0: q1 a1 q2 a2    x_1: a2 q3 a3    x_3: a7 q8 a8
    ->  x_0: q1 a1 q2 a2 q3 a3    x_3, a continuation
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from apps.data.read.record.layout import Turn
from apps.data.read.records import Broken, Record

_LONG_ANSWER_CHARS = 80
"""characters of an answer that two conversations do not share by chance"""
_PIECE_ID = re.compile(r"(.+)_(\d{1,9})")
PIECE_END_BYTES = 11
_PIECE_END = re.compile(rb'_\d{1,9}"')


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [start, end) of a file."""

    data: str
    """the input, or what was decoded of it"""
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """What of a piece must match its neighbours."""

    id: str
    span: Span
    stem: str
    number: int
    opens: str
    """digest of the answer that it begins with, or nothing"""
    closes: str
    """digest of the answer that it ends with, or nothing"""
    head: str = ""
    """digest of what the system says before all others, or nothing"""
    is_telling: bool = True
    """whether two conversations would not share that answer by chance"""


@dataclass(frozen=True, slots=True)
class RangeLinks:
    """The manifest of a range's search for pieces."""

    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """A conversation's first piece, by its id, and where the others lie."""

    id: str
    pieces: tuple[Span, ...]


@dataclass(slots=True)
class Chains:
    """What is to be put together."""

    joins: dict[str, Join] = field(default_factory=dict[str, Join])
    """by the id of the first piece"""
    joined: set[str] = field(default_factory=set[str])
    """ids of the pieces that become parts of others"""
    continuations: set[str] = field(default_factory=set[str])
    """ids of those that begin with an answer and have no predecessor"""


def piece_of(source_id: str) -> tuple[str, int] | None:
    """Stem and number of a piece's id: `abc_12` is ("abc", 12)."""
    match = _PIECE_ID.fullmatch(source_id)
    return (match[1], int(match[2])) if match else None


def may_have_pieces(data: bytes) -> bool:
    """Whether a text in JSON ends as the id of a piece does."""
    return _PIECE_END.search(data) is not None


def links_of(records: Iterable[Record | Broken], data: str) -> RangeLinks:
    """The pieces among the records of a range, which lie in `data`."""
    links: list[Link] = []
    for record in records:
        piece = piece_of(record.source_id) if isinstance(record, Record) else None
        if piece is None or isinstance(record, Broken):
            continue
        head, turns = split_head(record.turns)
        if not turns:
            continue
        links.append(
            Link(
                id=record.id,
                span=Span(data, record.start, record.end),
                stem=piece[0],
                number=piece[1],
                opens=_digest_of_answer(turns[0]),
                closes=_digest_of_answer(turns[-1]),
                head=_digest("\0".join(turn.text for turn in head)) if head else "",
                is_telling=_is_telling(turns),
            )
        )
    return RangeLinks(tuple(links))


def _is_telling(turns: Sequence[Turn]) -> bool:
    num_answers = sum(turn.role == "assistant" for turn in turns)
    return num_answers > 1 or len(turns[-1].text) >= _LONG_ANSWER_CHARS


def split_head(turns: Sequence[Turn]) -> tuple[Sequence[Turn], Sequence[Turn]]:
    """What the system says before all others, and the turns after it."""
    num_head = sum(1 for _ in itertools.takewhile(lambda turn: turn.role == "system", turns))
    return turns[:num_head], turns[num_head:]


def _digest_of_answer(turn: Turn) -> str:
    return _digest(turn.text) if turn.role == "assistant" else ""


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


_Chain = list[Link]


def chains_of(links: Iterable[Link]) -> Chains:
    """Chains of all pieces, in whatever order they lie: of each file, and then of these together.

    Two files may have split one dump in two ways, or have no more than their ids in common.
    """
    by_file: dict[tuple[str, str], list[Link]] = {}
    for link in links:
        by_file.setdefault((link.stem, link.span.data), []).append(link)
    by_stem: dict[str, list[_Chain]] = {}
    for (stem, _), own in by_file.items():
        by_stem.setdefault(stem, []).extend(_joined([[link] for link in own]))
    chains = Chains()
    for parts in by_stem.values():
        for chain in _joined(parts):
            if chain[0].opens:
                chains.continuations.add(chain[0].id)
            if len(chain) > 1:
                first, rest = chain[0].id, chain[1:]
                chains.joins[first] = Join(first, tuple(one.span for one in rest))
                chains.joined.update(one.id for one in rest)
    return chains


def _joined(parts: list[_Chain]) -> list[_Chain]:
    """Chains of one stem, joined where one ends as another begins; by number. A piece that is there
    twice goes on once."""
    parts = sorted(parts, key=lambda part: part[0].number)
    openings = Counter(opens for opens, _ in {(part[0].opens, part[0].number) for part in parts})
    only_counts = any(not part[0].opens for part in parts if part[0].number > parts[0][0].number)
    chains: list[_Chain] = []
    by_end: dict[str, list[_Chain]] = {}
    for part in parts:
        first = part[0]
        ended = by_end.get(first.opens, []) if openings[first.opens] == 1 else []
        chain = next((one for one in ended if _goes_on(one, first, only_counts)), None)
        if chain is None:
            chain = list(part)
            chains.append(chain)
        else:
            ended.remove(chain)
            chain += part
        if closes := chain[-1].closes:
            by_end.setdefault(closes, []).append(chain)
    return chains


def _goes_on(chain: _Chain, link: Link, only_counts: bool) -> bool:
    """Whether a chain that ends with the answer with which a piece begins goes on with that."""
    last = chain[-1]
    return (
        link.head in ("", chain[0].head)
        and last.number < link.number
        and (last.is_telling or not only_counts)
    )
