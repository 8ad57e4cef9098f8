"""What is forgotten: conversations past their days, or all of one visitor. Votes keep no texts."""

import asyncio
import logging

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from apps.serve.page.store.conversations import delete_conversations
from apps.serve.page.store.database import Database, now_s
from apps.serve.page.store.tables import Conversation, Lookup

logger = logging.getLogger("ray.serve")

_HOUR_S, _DAY_S = 3600.0, 86400.0
_AT_ONCE = 500


def forget_older(database: Database, days: int) -> int:
    """Deletes the conversations that began more than so many days ago; how many.

    And look-ups of more than a day ago, which no limit counts any more.
    """
    with database.write() as session:
        session.execute(sa.delete(Lookup).where(Lookup.created_s < now_s() - _DAY_S))
    return _forget(database, Conversation.created_s < now_s() - days * _DAY_S)


def forget_visitor(database: Database, visitor_id: str) -> int:
    """Deletes all conversations of a visitor; how many."""
    with database.write() as session:
        session.execute(sa.delete(Lookup).where(Lookup.visitor_id == visitor_id))
    return _forget(database, Conversation.visitor_id == visitor_id)


async def forget_hourly(database: Database, days: int) -> None:
    while True:
        try:
            await asyncio.to_thread(forget_older, database, days)
        except SQLAlchemyError:
            logger.exception("old conversations could not be deleted")
        await asyncio.sleep(_HOUR_S)


def _forget(database: Database, which: sa.ColumnElement[bool]) -> int:
    num_deleted = 0
    while True:
        with database.write() as session:
            ids = list(session.scalars(sa.select(Conversation.id).where(which).limit(_AT_ONCE)))
            delete_conversations(session, ids)
        num_deleted += len(ids)
        if len(ids) < _AT_ONCE:
            return num_deleted
