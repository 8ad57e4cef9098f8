"""Check that nobody has changed the arena's past.

    python -m apps.serve arena verify page.db

Reads the page's database: every digest of its log, and every vote against the log.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session
from tyro.conf import Positional

from apps.common.command.events import Reporter
from apps.common.errors import CorruptError
from apps.serve.page.store import log
from apps.serve.page.store.database import open_existing
from apps.serve.page.store.tables import LogEntry
from apps.serve.page.store.votes import votes_with_battles


@dataclass(frozen=True, kw_only=True, slots=True)
class ArenaConfig:
    """What to do with the arena's log."""

    action: Positional[Literal["verify"]]
    """verify: every entry follows from the one before, and every vote is what the log says"""
    database: Positional[str]
    """the page's database: a SQLite file, or a URL such as postgresql://user@host/name"""


def arena(settings: ArenaConfig, reporter: Reporter) -> None:
    with open_existing(settings.database) as database, database.read() as session:
        num_entries = session.scalar(sa.select(sa.func.count()).select_from(LogEntry)) or 0
        check(session)
        last = session.scalar(sa.select(LogEntry).order_by(LogEntry.position.desc()).limit(1))
    digest = last.digest if last else log.FIRST_DIGEST
    reporter.event("serve.arena", entries=num_entries, digest=digest, unchanged=True)


def check(session: Session) -> None:
    """Raises CorruptError at the first thing that does not fit."""
    if (position := log.first_break(session)) is not None:
        raise CorruptError(
            f"Entry {position} of the arena's log does not follow from the one before: it was "
            "changed, or an entry before it was taken away. Restore the database from a backup."
        )
    logged: dict[str, dict[str, Any]] = {body["battle"]: body for body in _bodies(session, "vote")}
    for body in _bodies(session, "left_out"):
        logged[body["battle"]] |= {"left_out_by": body["left_out_by"]}
    kept: dict[str, dict[str, Any]] = {
        vote.battle_id: {
            "battle": vote.battle_id,
            "models": [battle.left_model, battle.right_model],
            "verdict": vote.verdict,
            "left_out_by": vote.left_out_by,
        }
        for vote, battle in votes_with_battles(session)
    }
    for battle_id in sorted(logged.keys() | kept.keys()):
        if logged.get(battle_id) != kept.get(battle_id):
            raise CorruptError(
                f"The vote on battle {battle_id} is not what the arena's log says: it was changed, "
                "added or taken away. Restore the database from a backup."
            )


def _bodies(session: Session, kind: str) -> list[dict[str, Any]]:
    return [json.loads(entry.body) for entry in log.entries(session, kind)]
