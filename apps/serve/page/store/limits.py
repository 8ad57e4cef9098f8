"""How much one visitor, one block of addresses and all together may ask, counted in the database.

Counting there holds for all processes of the page, and over their restarts. No limit is passed by
asking in parallel: `known_visitor` locks out the same visitor, and `lock_counts` all others.
"""

import ipaddress
import math
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from apps.serve.page.config import PageLimits
from apps.serve.page.store.conversations import OPEN, Asker
from apps.serve.page.store.database import lock_counts, new_id, now_s
from apps.serve.page.store.refusal import Refusal
from apps.serve.page.store.tables import Request, Turn, Vote, WrongPassword

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86400.0
_LOST_S = 30.0
"""an answer whose process has not been heard of for so long takes no place any more"""


def count_answers(
    session: Session, asker: Asker, limits: PageLimits, turn_ids: Sequence[str]
) -> None:
    """Raises Refusal when these would be too many.

    An answer that is asked for again counts again; what its first try has cost stays counted.
    """
    _check_rates(session, asker, limits, len(turn_ids))
    check_running(session, asker, limits, len(turn_ids))
    _check_tokens(session, asker, limits)
    for turn_id in turn_ids:
        again = sa.update(Request).where(Request.id == turn_id).values(id=new_id())
        session.execute(again)
        _count(session, asker, turn_id)


def count_lookup(session: Session, asker: Asker, limits: PageLimits) -> None:
    """A search of training data counts as an answer. Raises Refusal when it would be too many."""
    _check_rates(session, asker, limits, 1)
    _count(session, asker, new_id())


def check_password(session: Session, address: str, limits: PageLimits) -> None:
    """Raises Refusal when one more wrong password would be too many."""
    for limit, whose, who in (
        (limits.address_wrong_passwords_per_hour, {"address": address}, "Your network has"),
        (limits.all_wrong_passwords_per_hour, {}, "All visitors together have"),
    ):
        if not limit:
            continue
        oldest = _oldest_in_the_way(session, WrongPassword, whose, _HOUR_S, limit - 1)
        if oldest is not None:
            raise _until(oldest + _HOUR_S, f"{who} tried too many wrong passwords.")


def forget_counted(session: Session) -> None:
    """Deletes what no limit counts any more."""
    session.execute(sa.delete(Request).where(Request.created_s < now_s() - _DAY_S))
    session.execute(sa.delete(WrongPassword).where(WrongPassword.created_s < now_s() - _HOUR_S))


def _count(session: Session, asker: Asker, request_id: str) -> None:
    row = {"visitor_id": asker.visitor_id, "address": asker.address, "created_s": now_s()}
    session.add(Request(id=request_id, tokens=0, **row))
    session.flush()


def _check_rates(session: Session, asker: Asker, limits: PageLimits, num_answers: int) -> None:
    if limits.address_answers_per_hour or limits.all_answers_per_hour:
        lock_counts(session)
    mine, here = {"visitor_id": asker.visitor_id}, {"address": asker.address}
    for limit, window_s, whose, who in (
        (limits.answers_per_minute, _MINUTE_S, mine, "You have"),
        (limits.answers_per_hour, _HOUR_S, mine, "You have"),
        (limits.address_answers_per_hour, _HOUR_S, here, "Your network has"),
        (limits.all_answers_per_hour, _HOUR_S, {}, "All visitors together have"),
    ):
        if not limit:
            continue
        oldest = _oldest_in_the_way(session, Request, whose, window_s, limit - num_answers)
        if oldest is not None:
            told = f"{who} asked as much as this page can answer for now."
            raise _until(oldest + window_s, told)


def check_vote(session: Session, asker: Asker, limits: PageLimits) -> None:
    """Raises Refusal when one more vote would be too many."""
    if limits.all_votes_per_hour:
        lock_counts(session)
    query = sa.select(sa.func.count()).where(Vote.created_s > now_s() - _HOUR_S)
    mine = query.where(Vote.visitor_id == asker.visitor_id)
    if limits.votes_per_hour and (session.scalar(mine) or 0) >= limits.votes_per_hour:
        raise Refusal("You have voted as often as this page takes for now. Try again later.")
    if limits.all_votes_per_hour and (session.scalar(query) or 0) >= limits.all_votes_per_hour:
        raise Refusal("This page takes no more votes for now. Try again later.")


def _until(free_s: float, told: str) -> Refusal:
    wait_s = max(1, math.ceil(free_s - now_s()))
    return Refusal(f"{told} Try again in {_in_words(wait_s)}.", wait_s)


def _oldest_in_the_way(
    session: Session,
    table: type[Request] | type[WrongPassword],
    whose: Mapping[str, str],
    window_s: float,
    room: int,
) -> float | None:
    """When the row was made that must leave the window before there is room; None: there is."""
    query = sa.select(table.created_s).filter_by(**whose)
    query = query.where(table.created_s > now_s() - window_s)
    newest_first = query.order_by(table.created_s.desc())
    return session.scalar(newest_first.offset(max(0, room)).limit(1))


def check_running(session: Session, asker: Asker, limits: PageLimits, num_answers: int) -> None:
    """Raises Refusal when so many more at a time would be too many."""
    if limits.all_running_answers:
        lock_counts(session)
    query = sa.select(sa.func.count()).where(
        Turn.status.in_(OPEN),
        Turn.created_s > now_s() - _DAY_S,
        sa.func.coalesce(sa.func.nullif(Turn.beat_s, 0.0), Turn.created_s) > now_s() - _LOST_S,
    )
    mine = query.where(Turn.visitor_id == asker.visitor_id)
    most = limits.running_answers
    if most and (session.scalar(mine) or 0) + num_answers > most:
        raise Refusal("Wait for your other answers first; too many are on their way.")
    most = limits.all_running_answers
    if most and (session.scalar(query) or 0) + num_answers > most:
        raise Refusal("Too many visitors are asking right now. Try again in a moment.")


def _check_tokens(session: Session, asker: Asker, limits: PageLimits) -> None:
    query = sa.select(sa.func.sum(Request.tokens)).where(Request.created_s > now_s() - _DAY_S)
    mine = query.where(Request.visitor_id == asker.visitor_id)
    if limits.tokens_per_day and (session.scalar(mine) or 0) >= limits.tokens_per_day:
        raise Refusal("You have had all the text that this page gives in a day. Come back later.")
    if limits.all_tokens_per_day and (session.scalar(query) or 0) >= limits.all_tokens_per_day:
        raise Refusal("This page has given all the text that it gives in a day. Come back later.")


def _in_words(wait_s: int) -> str:
    return f"{wait_s} seconds" if wait_s < 100 else f"{math.ceil(wait_s / 60)} minutes"


def address_block(address: str) -> str:
    """The block that one household or host commands: /24 of IPv4, /48 of IPv6."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    prefix = 24 if ip.version == 4 else 48
    return str(ipaddress.ip_network(f"{ip}/{prefix}", strict=False))
