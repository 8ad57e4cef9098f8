"""What is forgotten: conversations past their days, what a link shows, or all of one visitor.

Votes keep no texts.
"""

import asyncio
import logging

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from apps.serve.page.store.conversations import delete_conversations
from apps.serve.page.store.database import Database, now_s
from apps.serve.page.store.limits import forget_counted
from apps.serve.page.store.tables import Conversation, Request

logger = logging.getLogger("ray.serve")

_HOUR_S, _DAY_S = 3600.0, 86400.0
_AT_ONCE = 500


def forget_older(database: Database, days: int) -> int:
    """Deletes the conversations that began more than so many days ago; how many."""
    return _forget(database, Conversation.created_s < now_s() - days * _DAY_S)


def forget_visitor(database: Database, visitor_id: str) -> int:
    """Deletes all conversations of a visitor; how many."""
    with database.write() as session:
        session.execute(sa.delete(Request).where(Request.visitor_id == visitor_id))
    return _forget(database, Conversation.visitor_id == visitor_id)


def forget_shared(database: Database, token: str) -> int:
    """Deletes what a link shows, of a battle both sides; how many conversations."""
    with database.read() as session:
        shared = session.scalar(sa.select(Conversation).where(Conversation.share_token == token))
    if shared is None:
        return 0
    if shared.battle_id is None:
        return _forget(database, Conversation.id == shared.id)
    return _forget(database, Conversation.battle_id == shared.battle_id)


async def forget_hourly(database: Database, days: int) -> None:
    """And what the limits count no more; `days` of 0: conversations stay."""
    while True:
        try:
            await asyncio.to_thread(_forget_counted, database)
            if days:
                await asyncio.to_thread(forget_older, database, days)
        except SQLAlchemyError:
            logger.exception("what is old could not be deleted")
        await asyncio.sleep(_HOUR_S)


def _forget_counted(database: Database) -> None:
    with database.write() as session:
        forget_counted(session)


def _forget(database: Database, which: sa.ColumnElement[bool]) -> int:
    num_deleted = 0
    while True:
        with database.write() as session:
            ids = list(session.scalars(sa.select(Conversation.id).where(which).limit(_AT_ONCE)))
            delete_conversations(session, ids)
        num_deleted += len(ids)
        if len(ids) < _AT_ONCE:
            return num_deleted
