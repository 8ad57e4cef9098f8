"""Votes of the page, for whoever computes with them.

    python -m apps.serve votes export page.db --out votes.jsonl
    python -m apps.serve votes ratings page.db

Reads the page's database; writes JSONL of design "Visitors, battles, votes", or a table.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from sqlalchemy.orm import Session
from tyro.conf import Positional

from apps.common.command.events import Reporter
from apps.common.files import storage
from apps.serve.page.arena.leaderboard import category_of, counted_votes, rated
from apps.serve.page.store.conversations import sides, turns_of
from apps.serve.page.store.database import open_existing
from apps.serve.page.store.tables import Battle, Vote
from apps.serve.page.store.votes import votes_with_battles


@dataclass(frozen=True, kw_only=True, slots=True)
class VotesConfig:
    """What to do with the votes of a page."""

    action: Positional[Literal["export", "ratings"]]
    """export: one JSON line a vote; ratings: Bradley-Terry with 95 % intervals"""
    database: Positional[str]
    """the page's database: a SQLite file, or a URL such as postgresql://user@host/name"""
    out: str = "-"
    """file to write; -: standard output"""


def votes(settings: VotesConfig, reporter: Reporter) -> None:
    with open_existing(settings.database) as database, database.read() as session:
        if settings.action == "export":
            lines = [orjson.dumps(record) for record in exported(session)]
        else:
            lines = [orjson.dumps(row) for row in _ratings(session)]
    write_lines(lines, settings.out)
    if settings.out != "-":
        reporter.event("serve.votes", action=settings.action, rows=len(lines), out=settings.out)


def exported(session: Session) -> Iterator[dict[str, Any]]:
    """Records of the design's contract, in the order of the votes."""
    for vote, battle in votes_with_battles(session):
        yield _record(session, vote, battle)


def _record(session: Session, vote: Vote, battle: Battle) -> dict[str, Any]:
    talks = [_messages(session, side.id) for side in sides(session, battle.id)]
    question = talks[0][0]["content"] if talks and talks[0] else ""
    return {
        "battle_id": battle.id,
        "created": datetime.fromtimestamp(vote.created_s, UTC).isoformat(timespec="seconds"),
        "visitor": hashlib.sha256(vote.visitor_id.encode()).hexdigest()[:16],
        "models": [battle.left_model, battle.right_model],
        "verdict": vote.verdict,
        "blind": battle.blind,
        "category": category_of(question),
        "counted": vote.left_out_by == "",
        "left_out_by": vote.left_out_by,
        "conversations": talks,
    }


def _messages(session: Session, conversation_id: str) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for turn in turns_of(session, conversation_id)
        for role, content in (("user", turn.question), ("assistant", turn.answer))
    ]


def _ratings(session: Session) -> Iterator[dict[str, Any]]:
    for row in rated(counted_votes(session)):
        yield {
            "rank": row.rank,
            "model": row.model,
            "rating": round(row.rating, 1),
            "low": round(row.low, 1),
            "high": round(row.high, 1),
            "battles": row.num_battles,
            "win_rate": round(row.win_rate, 4),
        }


def write_lines(lines: list[bytes], out: str) -> None:
    body = b"".join(line + b"\n" for line in lines)
    if out == "-":
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
    else:
        storage.write_atomic(out, body)
