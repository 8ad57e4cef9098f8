"""The leaderboard: Bradley-Terry ratings with intervals from the votes that count.

Votes of one visitor are not independent, so the bootstrap draws whole visitors.
"""

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.common import ratings
from apps.serve.page.arena.ruling import apply_rules
from apps.serve.page.arena.style import StyledVote, StyleTable, controlled
from apps.serve.page.store import log
from apps.serve.page.store.database import Database
from apps.serve.page.store.tables import Battle, Conversation, LogEntry, Turn, Vote
from apps.serve.page.store.votes import OUTCOMES

_AGE_S = 20.0
_LONG_CHARS = 500
_CODE = re.compile(r"```|\b(?:def|class|import|function|SELECT|printf?|#include)\b|[{};]\s*$", re.M)
_LATIN = re.compile(r"[A-Za-z]")
_OTHER = re.compile(r"[^\W\d_A-Za-z]")
_ENGLISH = re.compile(r"(?i)\b(?:the|and|is|are|of|to|in|a|what|how|why|you|write|for|with)\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedVote:
    """A vote as the ratings take it."""

    battle_id: str
    visitor_id: str
    left: str
    right: str
    verdict: str
    question: str


class RatingRow(TypedDict):
    """One line of a table."""

    rank: int
    model: str
    rating: int
    low: int
    high: int
    battles: int
    win_rate: float


class CategoryTable(TypedDict):
    """Ratings, best first; `win_rates[i][j]`: how often row i beats row j, None where unplayed."""

    ratings: list[RatingRow]
    win_rates: list[list[float | None]]
    num_votes: int


class Tables(TypedDict):
    """All that the leaderboard shows."""

    categories: dict[str, CategoryTable]
    num_votes: int
    left_out: dict[str, int]
    """votes by the rule that leaves them out"""
    log_digest: str


CATEGORIES: dict[str, Callable[[str], bool]] = {
    "all": lambda question: True,
    "code": lambda question: bool(_CODE.search(question)),
    "long": lambda question: len(question) >= _LONG_CHARS,
    "english": lambda question: is_english(question),
    "other languages": lambda question: not is_english(question),
}


def is_english(question: str) -> bool:
    """A guess from its letters and its commonest words; enough to split a table by."""
    latin, other = len(_LATIN.findall(question)), len(_OTHER.findall(question))
    return latin > 4 * other and _ENGLISH.search(question) is not None


def category_of(question: str) -> str:
    """The narrowest category, for exports."""
    return next(
        (name for name in ("code", "long") if CATEGORIES[name](question)),
        "english" if is_english(question) else "other languages",
    )


def counted_votes(session: Session) -> list[CountedVote]:
    """The votes that no rule leaves out, in the order they came."""
    query = (
        sa.select(Vote, Battle, sa.func.min(Turn.question))
        .join(Battle, Battle.id == Vote.battle_id)
        .outerjoin(
            Conversation, sa.and_(Conversation.battle_id == Battle.id, Conversation.side == "left")
        )
        .outerjoin(Turn, sa.and_(Turn.conversation_id == Conversation.id, Turn.parent_id.is_(None)))
        .where(Vote.left_out_by == "")
        .group_by(Vote.battle_id, Battle.id)
        .order_by(Vote.created_s, Vote.battle_id)
    )
    return [
        CountedVote(
            battle_id=vote.battle_id,
            visitor_id=vote.visitor_id,
            left=battle.left_model,
            right=battle.right_model,
            verdict=vote.verdict,
            question=question or "",
        )
        for vote, battle, question in session.execute(query)
    ]


def styled_votes(session: Session) -> list[StyledVote]:
    """The votes that count, with the last answers, whose texts are still kept."""
    query = (
        sa.select(Vote, Battle, Conversation.side, Turn.answer)
        .join(Battle, Battle.id == Vote.battle_id)
        .join(Conversation, Conversation.battle_id == Battle.id)
        .join(Turn, Turn.conversation_id == Conversation.id)
        .where(Vote.left_out_by == "")
        .order_by(Vote.created_s, Vote.battle_id, Turn.created_s)
    )
    rows: dict[str, tuple[Vote, Battle]] = {}
    texts: dict[tuple[str, str | None], str] = {}
    for vote, battle, side, answer in session.execute(query):
        rows[battle.id] = (vote, battle)
        texts[battle.id, side] = answer
    return [
        StyledVote(
            visitor_id=vote.visitor_id,
            left=battle.left_model,
            right=battle.right_model,
            outcome=OUTCOMES[vote.verdict],
            left_text=texts[battle_id, "left"],
            right_text=texts[battle_id, "right"],
        )
        for battle_id, (vote, battle) in rows.items()
        if (battle_id, "left") in texts and (battle_id, "right") in texts
    ]


def rated(votes: Sequence[CountedVote], num_resamples: int = 200) -> list[ratings.Rating]:
    records = [(v.left, v.right, OUTCOMES[v.verdict], v.visitor_id) for v in votes]
    return ratings.leaderboard(ratings.Battles.of(records), num_resamples)


class Leaderboard:
    """Computes the tables at most every 20 s, and writes every change of rank into the log."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._made_s = float("-inf")
        self._tables = Tables(categories={}, num_votes=0, left_out={}, log_digest="")
        self._state: object = None
        self._styled: StyleTable | None = None
        self._styled_votes = 0

    async def tables(self) -> Tables:
        async with self._lock:
            if time.monotonic() - self._made_s > _AGE_S:
                self._tables = await asyncio.to_thread(self._newest)
                self._made_s = time.monotonic()
        return self._tables

    async def style_controlled(self) -> StyleTable:
        """Computed when somebody asks for it, from the votes that count by now."""
        votes = (await self.tables())["num_votes"]
        async with self._lock:
            if self._styled is None or self._styled_votes != votes:
                self._styled = await asyncio.to_thread(self._control_style)
                self._styled_votes = votes
        return self._styled

    def _control_style(self) -> StyleTable:
        with self._database.read() as session:
            return controlled(styled_votes(session))

    def _newest(self) -> Tables:
        """Computed anew when there is another vote than last time."""
        with self._database.read() as session:
            query = sa.select(sa.func.count(), sa.func.max(Vote.created_s)).select_from(Vote)
            state = tuple(session.execute(query).one())
        if state != self._state:
            self._tables, self._state = self._compute(), state
        return self._tables

    def _compute(self) -> Tables:
        apply_rules(self._database)
        with self._database.read() as session:
            votes = counted_votes(session)
            left_out = Counter(
                session.scalars(sa.select(Vote.left_out_by).where(Vote.left_out_by != ""))
            )
        categories = {
            name: _table([vote for vote in votes if belongs(vote.question)])
            for name, belongs in CATEGORIES.items()
        }
        return {
            "categories": categories,
            "num_votes": len(votes),
            "left_out": dict(left_out),
            "log_digest": self._log_ranks(categories["all"]["ratings"]),
        }

    def _log_ranks(self, rows: Sequence[RatingRow]) -> str:
        """Digest of the log's last entry; an entry is added when a rank has changed."""
        body = {"ranks": {row["model"]: row["rank"] for row in rows}}
        with self._database.write() as session:
            ranks = sa.select(LogEntry).where(LogEntry.kind == "ranks")
            last = session.scalar(ranks.order_by(LogEntry.position.desc()).limit(1))
            if rows and (last is None or last.body != log.canonical(body)):
                return log.append(self._database, session, "ranks", body)
            newest = session.scalar(sa.select(LogEntry).order_by(LogEntry.position.desc()).limit(1))
            return newest.digest if newest else log.FIRST_DIGEST


def _table(votes: Sequence[CountedVote]) -> CategoryTable:
    rows = rated(votes)
    names = [row.model for row in rows]
    wins: dict[tuple[str, str], float] = defaultdict(float)
    games: Counter[tuple[str, str]] = Counter()
    for vote in votes:
        wins[vote.left, vote.right] += OUTCOMES[vote.verdict]
        wins[vote.right, vote.left] += 1 - OUTCOMES[vote.verdict]
        games[vote.left, vote.right] += 1
        games[vote.right, vote.left] += 1
    return {
        "ratings": [
            {
                "rank": row.rank,
                "model": row.model,
                "rating": round(row.rating),
                "low": round(row.low),
                "high": round(row.high),
                "battles": row.num_battles,
                "win_rate": round(row.win_rate, 3),
            }
            for row in rows
        ],
        "win_rates": [
            [round(wins[a, b] / games[a, b], 3) if games[a, b] else None for b in names]
            for a in names
        ],
        "num_votes": len(votes),
    }
