"""Votes of the page, for whoever computes with them.

    python -m apps.serve votes export page.db --out votes.jsonl
    python -m apps.serve votes pairs page.db --out pairs.jsonl
    python -m apps.serve votes ratings page.db

Reads the page's database; writes JSON lines: a vote, a preference pair or a model's rating each.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import orjson
from sqlalchemy.orm import Session
from tyro.conf import Positional

from apps.common.command.events import Reporter
from apps.common.files import storage
from apps.serve.page.arena.leaderboard import category_of, counted_votes, rated
from apps.serve.page.store.conversations import messages_before, sides, turns_of
from apps.serve.page.store.database import open_existing
from apps.serve.page.store.tables import Battle, Visitor, Vote
from apps.serve.page.store.votes import votes_with_battles


@dataclass(frozen=True, kw_only=True, slots=True)
class VotesConfig:
    """What to do with the votes of a page."""

    action: Positional[Literal["export", "pairs", "ratings"]]
    """export: one JSON line a vote; pairs: chosen and rejected answers to train on;
    ratings: Bradley-Terry with 95 % intervals"""
    database: Positional[str]
    """the page's database: a SQLite file, or a URL such as postgresql://user@host/name"""
    out: str = "-"
    """file to write; -: standard output"""


def votes(settings: VotesConfig, reporter: Reporter) -> None:
    with open_existing(settings.database) as database, database.read() as session:
        if settings.action == "export":
            lines = [orjson.dumps(record) for record in exported(session)]
        elif settings.action == "pairs":
            lines = [orjson.dumps(pair) for pair in preference_pairs(session)]
        else:
            lines = [orjson.dumps(row) for row in _ratings(session)]
    write_lines(lines, settings.out)
    if settings.out != "-":
        reporter.event("serve.votes", action=settings.action, rows=len(lines), out=settings.out)


def exported(session: Session) -> Iterator[dict[str, object]]:
    """A record for each vote, in their order, as `apps.eval report --human` reads them."""
    for vote, battle in votes_with_battles(session):
        yield _record(session, vote, battle)


def _record(session: Session, vote: Vote, battle: Battle) -> dict[str, object]:
    talks = [_messages(session, side.id) for side in sides(session, battle.id)]
    question = talks[0][0]["content"] if talks and talks[0] else ""
    return {
        "battle_id": battle.id,
        "created": datetime.fromtimestamp(vote.created_s, UTC).isoformat(timespec="seconds"),
        "visitor": _hashed(vote.visitor_id),
        "consent": _has_agreed(session, vote),
        "models": [battle.left_model, battle.right_model],
        "verdict": vote.verdict,
        "blind": battle.blind,
        "category": category_of(question),
        "counted": vote.left_out_by == "",
        "left_out_by": vote.left_out_by,
        "conversations": talks,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferencePair:
    """A counted vote as a preference pair to train on, with the visitor's consent."""

    id: str
    messages: list[dict[str, str]]
    """the context, which ends with the user's question"""
    chosen: str
    rejected: str
    source: Literal["vote"] = "vote"
    weight: float = 1.0
    models: tuple[str, str]
    """chosen's, rejected's"""
    visitor: str
    consent: bool
    """whether the visitor agreed to the page's terms"""


def preference_pairs(session: Session) -> Iterator[PreferencePair]:
    """Votes that count and prefer a side, where both models were asked in the same context.

    From the second question on each model has its own answers before it: no pair.
    """
    for vote, battle in votes_with_battles(session):
        if vote.left_out_by or vote.verdict not in ("left", "right"):
            continue
        both = sides(session, battle.id)
        turns = [turns_of(session, side.id) for side in both]
        if [len(side) for side in turns] != [1, 1]:
            continue
        won = 0 if vote.verdict == "left" else 1
        names = (battle.left_model, battle.right_model)
        yield PreferencePair(
            id=battle.id,
            messages=messages_before(session, turns[won][0]),
            chosen=turns[won][0].answer,
            rejected=turns[1 - won][0].answer,
            models=(names[won], names[1 - won]),
            visitor=_hashed(vote.visitor_id),
            consent=_has_agreed(session, vote),
        )


def _has_agreed(session: Session, vote: Vote) -> bool:
    return session.get_one(Visitor, vote.visitor_id).consented_s is not None


def _hashed(visitor_id: str) -> str:
    return hashlib.sha256(visitor_id.encode()).hexdigest()[:16]


def _messages(session: Session, conversation_id: str) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for turn in turns_of(session, conversation_id)
        for role, content in (("user", turn.question), ("assistant", turn.answer))
    ]


def _ratings(session: Session) -> Iterator[dict[str, object]]:
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
