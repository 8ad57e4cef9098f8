"""The arena's log: each entry carries a digest over itself and the one before.

Whoever changes, drops or adds an entry later has to change every digest after it, and with them the
last one, which the leaderboard shows. `python -m apps.serve arena verify` computes them anew.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.serve.page.store.database import Database, now_s
from apps.serve.page.store.tables import LogEntry

FIRST_DIGEST = "0" * 64


def append(database: Database, session: Session, kind: str, body: Mapping[str, object]) -> str:
    """Digest of the new last entry; it is there when the session's transaction ends well."""
    last = database.lock_log(session)
    entry = LogEntry(
        position=last.position + 1 if last else 1,
        created_s=now_s(),
        kind=kind,
        body=canonical(body),
        digest="",
    )
    entry.digest = digest(last.digest if last else FIRST_DIGEST, entry)
    session.add(entry)
    session.flush()
    return entry.digest


def canonical(body: Mapping[str, object]) -> str:
    return json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(before: str, entry: LogEntry) -> str:
    fields = (before, entry.position, f"{entry.created_s:.6f}", entry.kind, entry.body)
    return hashlib.sha256("\n".join(map(str, fields)).encode()).hexdigest()


def entries(session: Session, kind: str | None = None) -> Iterable[LogEntry]:
    query = sa.select(LogEntry).order_by(LogEntry.position)
    return session.scalars(query if kind is None else query.where(LogEntry.kind == kind))


def first_break(session: Session) -> int | None:
    """Position of the first entry that does not follow from the one before; None: all do."""
    before = FIRST_DIGEST
    for position, entry in enumerate(entries(session), 1):
        if entry.position != position or entry.digest != digest(before, entry):
            return position
        before = entry.digest
    return None
