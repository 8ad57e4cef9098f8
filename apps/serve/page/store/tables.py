"""The tables of visitors, conversations, battles and votes.

Times are seconds since 1970, so that every database keeps them alike.
"""

from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Verdict = Literal["left", "right", "tie", "both_bad"]
VERDICTS: tuple[Verdict, ...] = ("left", "right", "tie", "both_bad")
Status = Literal["waiting", "running", "done", "stopped", "failed", "blocked"]
Kind = Literal["chat", "battle", "side_by_side"]

_ID = sa.String(32)


class Base(DeclarativeBase):
    pass


class Secret(Base):
    """What all processes of the page share, such as the key that signs cookies."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    value: Mapped[str] = mapped_column(sa.String(128))


class Visitor(Base):
    """Someone with a cookie of ours."""

    __tablename__ = "visitors"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    created_s: Mapped[float] = mapped_column(sa.Double)
    consented_s: Mapped[float | None] = mapped_column(sa.Double)
    """when the terms were accepted"""


class Battle(Base):
    """The same questions to two models."""

    __tablename__ = "battles"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    visitor_id: Mapped[str] = mapped_column(sa.ForeignKey("visitors.id"), index=True)
    created_s: Mapped[float] = mapped_column(sa.Double, index=True)
    left_model: Mapped[str] = mapped_column(sa.String(96))
    right_model: Mapped[str] = mapped_column(sa.String(96))
    blind: Mapped[bool]
    """Whether the names were hidden until the vote."""


class Conversation(Base):
    """One visitor and one model; a battle has two."""

    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    visitor_id: Mapped[str] = mapped_column(sa.ForeignKey("visitors.id"), index=True)
    battle_id: Mapped[str | None] = mapped_column(sa.ForeignKey("battles.id"), index=True)
    side: Mapped[str | None] = mapped_column(sa.String(5))
    created_s: Mapped[float] = mapped_column(sa.Double, index=True)
    kind: Mapped[str] = mapped_column(sa.String(12))
    model: Mapped[str] = mapped_column(sa.String(96))
    title: Mapped[str] = mapped_column(sa.String(120))
    settings: Mapped[dict[str, object]] = mapped_column(sa.JSON)
    """temperature, top_p, max_tokens and system, as the visitor set them last"""
    share_token: Mapped[str | None] = mapped_column(sa.String(43), unique=True)
    shared_turn_id: Mapped[str | None] = mapped_column(_ID)
    """A shared link shows the branch that ends with this turn, and nothing that came later."""


class Turn(Base):
    """A question and its answer; the question is stored before the model is called."""

    __tablename__ = "turns"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    conversation_id: Mapped[str] = mapped_column(sa.ForeignKey("conversations.id"), index=True)
    parent_id: Mapped[str | None] = mapped_column(_ID)
    """The turn before; turns of one parent are branches."""
    visitor_id: Mapped[str] = mapped_column(sa.ForeignKey("visitors.id"))
    created_s: Mapped[float] = mapped_column(sa.Double)
    system: Mapped[str] = mapped_column(sa.Text, server_default="")
    """the system message of this question, which a visitor may change within a chat"""
    question: Mapped[str] = mapped_column(sa.Text)
    answer: Mapped[str] = mapped_column(sa.Text)
    status: Mapped[str] = mapped_column(sa.String(8))
    finish_reason: Mapped[str] = mapped_column(sa.String(16))
    error: Mapped[str] = mapped_column(sa.String(300))
    """our own sentence for the visitor"""
    flags: Mapped[dict[str, object]] = mapped_column(sa.JSON)
    """what moderation or the arena found, such as {"names_a_model": true}"""
    owner: Mapped[str] = mapped_column(_ID)
    """the process that asks the model"""
    beat_s: Mapped[float] = mapped_column(sa.Double)
    """when the owner last said that it is at work"""
    watched_s: Mapped[float] = mapped_column(sa.Double)
    """when a page last looked; an answer that nobody waits for is stopped"""
    last_event: Mapped[str] = mapped_column(sa.String(256), server_default="")
    """id of the last event behind `answer`, when the API numbers its events"""

    __table_args__ = (
        sa.Index("ix_turns_visitor_created", "visitor_id", "created_s"),
        sa.Index("ix_turns_created", "created_s"),
    )


class Request(Base):
    """What the limits count: an answer that was asked for, or a look into the training data.

    Apart from the conversations, so that who deletes one may not ask more for it. Rows of more than
    a day ago are deleted.
    """

    __tablename__ = "requests"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    """of the turn, where one is answered"""
    visitor_id: Mapped[str] = mapped_column(sa.ForeignKey("visitors.id"))
    address: Mapped[str] = mapped_column(sa.String(16))
    """digest of the block of addresses that it came from"""
    created_s: Mapped[float] = mapped_column(sa.Double)
    tokens: Mapped[int]
    """that the model has given for it so far"""

    __table_args__ = (
        sa.Index("ix_requests_visitor_created", "visitor_id", "created_s"),
        sa.Index("ix_requests_address_created", "address", "created_s"),
        sa.Index("ix_requests_created", "created_s"),
    )


class WrongPassword(Base):
    """A password that opened nothing; kept for an hour."""

    __tablename__ = "wrong_passwords"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    address: Mapped[str] = mapped_column(sa.String(16))
    """digest of the block of addresses that it came from"""
    created_s: Mapped[float] = mapped_column(sa.Double, index=True)


class Vote(Base):
    """A verdict on a battle; the texts are the battle's own."""

    __tablename__ = "votes"

    battle_id: Mapped[str] = mapped_column(sa.ForeignKey("battles.id"), primary_key=True)
    """One battle takes one vote."""
    created_s: Mapped[float] = mapped_column(sa.Double, index=True)
    visitor_id: Mapped[str] = mapped_column(sa.ForeignKey("visitors.id"), index=True)
    address: Mapped[str] = mapped_column(sa.String(16), index=True)
    verdict: Mapped[str] = mapped_column(sa.String(8))
    left_out_by: Mapped[str] = mapped_column(sa.String(40))
    """the rule that keeps the vote out of the ratings; empty: it counts"""


class LogEntry(Base):
    """One link of the arena's log; each carries the digest of the one before."""

    __tablename__ = "log"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_s: Mapped[float] = mapped_column(sa.Double)
    kind: Mapped[str] = mapped_column(sa.String(16))
    body: Mapped[str] = mapped_column(sa.Text)
    digest: Mapped[str] = mapped_column(sa.String(64))
