"""Conversations of the page as a ShareGPT dump, which `python -m apps.data clean` reads.

    python -m apps.serve conversations export page.db --out dump.jsonl
    python -m apps.serve conversations forget page.db --visitor ID
    python -m apps.serve conversations forget page.db --link https://chat.example.org/s/TOKEN

Reads the page's database. Blocked questions are left out; an answer's branches are one record each.
So are the system messages of a chat in which they changed. Each answer is learned in the record
that shows what it was given, and has `weight: 0` where it only leads up to others:

    asked under "Be brief.": A, then under "Rhyme.": B, C
    ->  [Be brief.] A        [Rhyme.] A (weight 0) B C
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson
import sqlalchemy as sa
from sqlalchemy.orm import Session
from tyro.conf import Positional

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, NotFoundError
from apps.serve.page.arena.leaderboard import category_of
from apps.serve.page.store.conversations import ANSWERED, branch, turns_of
from apps.serve.page.store.database import open_existing
from apps.serve.page.store.retention import forget_shared, forget_visitor
from apps.serve.page.store.tables import Conversation, Turn, Visitor
from apps.serve.votes import write_lines

_TOKEN_CHARS = 43
_LINK = re.compile(r"(?:\S*/s/)?[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationsConfig:
    """What to do with the conversations of a page."""

    action: Positional[Literal["export", "forget"]]
    """export: ShareGPT records with id, model, consent and flags; forget: delete a visitor's, or
    what a shared link shows"""
    database: Positional[str]
    """the page's database: a SQLite file, or a URL such as postgresql://user@host/name"""
    out: str = "-"
    """file to write, one record a line; -: standard output"""
    visitor: str = ""
    """id of the visitor whose conversations are forgotten; the About tab shows visitors theirs"""
    link: str = ""
    """shared link; what it shows is forgotten"""

    def __post_init__(self) -> None:
        num_given = bool(self.visitor) + bool(self.link)
        if num_given != (self.action == "forget"):
            raise ConfigError(
                "`conversations forget` needs --visitor ID or --link URL, one of them, and "
                "nothing else does."
            )
        if self.link and not _LINK.fullmatch(self.link):
            raise ConfigError(
                f"--link is {self.link!r}; expected a link as the page's Share button gives it, "
                "such as https://chat.example.org/s/ and 43 characters."
            )


def conversations(settings: ConversationsConfig, reporter: Reporter) -> None:
    if settings.action == "forget":
        _forget(settings, reporter)
        return
    with open_existing(settings.database) as database, database.read() as session:
        lines = [orjson.dumps(record) for record in exported(session)]
    write_lines(lines, settings.out)
    if settings.out != "-":
        reporter.event("serve.conversations", rows=len(lines), out=settings.out)


def _forget(settings: ConversationsConfig, reporter: Reporter) -> None:
    with open_existing(settings.database) as database:
        if settings.link:
            num_deleted = forget_shared(database, settings.link[-_TOKEN_CHARS:])
        else:
            num_deleted = forget_visitor(database, settings.visitor)
    if not num_deleted:
        raise NotFoundError(
            f"{settings.database} has no conversation of {settings.link or settings.visitor!r}; "
            "no conversation was deleted."
        )
    reporter.event("serve.forgotten", conversations=num_deleted)


def _flags(turn: Turn) -> list[str]:
    """Beside what moderation and the arena found: whether the answer has no end of its own."""
    is_cut = turn.status == "stopped" or turn.finish_reason == "length"
    return [*turn.flags, *(["cut_off"] if is_cut else [])]


def _answered_paths(turns: Sequence[Turn]) -> list[list[Turn]]:
    """The turns that the model was shown, of each branch and under each of its system messages;
    those without an answer are left out."""
    answered = [turn for turn in turns if turn.status in ANSWERED and turn.answer.strip()]
    ids = {turn.id for turn in answered}
    paths = [[one for one in branch(turns, turn.id) if one.id in ids] for turn in answered]
    gone_on = {turn.id for *before, last in paths for turn in before if turn.system == last.system}
    return [path for path in paths if path[-1].id not in gone_on]


def _messages(path: Sequence[Turn]) -> Iterator[dict[str, object]]:
    """As the last question's model was shown them. An answer that another system message led to is
    none to learn here."""
    system = path[-1].system
    if system:
        yield {"from": "system", "value": system}
    for turn in path:
        yield {"from": "human", "value": turn.question}
        weight = {} if turn.system == system else {"weight": 0}
        yield {"from": "gpt", "value": turn.answer, **weight}


def exported(session: Session) -> Iterator[dict[str, object]]:
    query = sa.select(Conversation, Visitor).join(Visitor, Visitor.id == Conversation.visitor_id)
    query = query.where(Conversation.model != "")
    for talk, visitor in session.execute(query.order_by(Conversation.created_s, Conversation.id)):
        for path in _answered_paths(turns_of(session, talk.id)):
            yield {
                "id": path[-1].id,
                "model": talk.model,
                "consent": visitor.consented_s is not None,
                "flags": sorted({flag for turn in path for flag in _flags(turn)}),
                "category": category_of(path[0].question),
                "conversations": list(_messages(path)),
            }
