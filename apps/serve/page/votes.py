"""What people prefer: one row per vote, in any database that SQLAlchemy reaches."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

Verdict = Literal["left", "right", "tie", "both_bad"]
VERDICTS: tuple[Verdict, ...] = ("left", "right", "tie", "both_bad")


class _Base(DeclarativeBase):
    pass


class Vote(_Base):
    """One person's verdict on one pair of conversations."""

    __tablename__ = "votes"

    battle_id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    """One battle takes one vote."""
    created: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    session: Mapped[str] = mapped_column(sa.String(64), index=True)
    left_model: Mapped[str] = mapped_column(sa.String(96), index=True)
    right_model: Mapped[str] = mapped_column(sa.String(96), index=True)
    verdict: Mapped[str] = mapped_column(sa.String(8))
    blind: Mapped[bool]
    """Whether the names were hidden until the vote."""
    left: Mapped[list[Any]] = mapped_column(sa.JSON)
    right: Mapped[list[Any]] = mapped_column(sa.JSON)
    settings: Mapped[dict[str, Any]] = mapped_column(sa.JSON)


class VoteStore:
    """The table of votes; made when it is not there."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, pool_pre_ping=True)
        _Base.metadata.create_all(self._engine)

    def add(
        self,
        *,
        battle_id: str,
        session: str,
        models: tuple[str, str],
        verdict: Verdict,
        blind: bool,
        conversations: tuple[Sequence[Any], Sequence[Any]],
        settings: Mapping[str, Any],
    ) -> bool:
        """Keep a vote; False when this battle has one already."""
        vote = Vote(
            battle_id=battle_id,
            created=datetime.now(UTC),
            session=session,
            left_model=models[0],
            right_model=models[1],
            verdict=verdict,
            blind=blind,
            left=list(conversations[0]),
            right=list(conversations[1]),
            settings=dict(settings),
        )
        try:
            with Session(self._engine) as db, db.begin():
                db.add(vote)
        except IntegrityError:
            return False
        return True

    def all(self) -> list[Vote]:
        with Session(self._engine) as db:
            return list(db.scalars(sa.select(Vote).order_by(Vote.created)))

    def close(self) -> None:
        self._engine.dispose()


def new_battle_id() -> str:
    return uuid.uuid4().hex
