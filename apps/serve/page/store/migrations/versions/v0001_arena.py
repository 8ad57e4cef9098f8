"""Visitors, conversations, battles, votes and the log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.String(32)


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(128), nullable=False),
    )
    op.create_table(
        "visitors",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("consented_s", sa.Double),
    )
    op.create_table(
        "battles",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("visitor_id", _ID, sa.ForeignKey("visitors.id"), nullable=False, index=True),
        sa.Column("created_s", sa.Double, nullable=False, index=True),
        sa.Column("left_model", sa.String(96), nullable=False),
        sa.Column("right_model", sa.String(96), nullable=False),
        sa.Column("blind", sa.Boolean, nullable=False),
    )
    _conversations()
    _turns()
    _votes()
    op.create_table(
        "log",
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )


def _conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("visitor_id", _ID, sa.ForeignKey("visitors.id"), nullable=False, index=True),
        sa.Column("battle_id", _ID, sa.ForeignKey("battles.id"), index=True),
        sa.Column("side", sa.String(5)),
        sa.Column("created_s", sa.Double, nullable=False, index=True),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("model", sa.String(96), nullable=False),
        sa.Column("title", sa.String(120), nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("share_token", sa.String(43), unique=True),
        sa.Column("shared_turn_id", _ID),
    )


def _turns() -> None:
    op.create_table(
        "turns",
        sa.Column("id", _ID, primary_key=True),
        sa.Column(
            "conversation_id", _ID, sa.ForeignKey("conversations.id"), nullable=False, index=True
        ),
        sa.Column("parent_id", _ID),
        sa.Column("visitor_id", _ID, sa.ForeignKey("visitors.id"), nullable=False),
        sa.Column("address", sa.String(16), nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("finish_reason", sa.String(16), nullable=False),
        sa.Column("error", sa.String(300), nullable=False),
        sa.Column("flags", sa.JSON, nullable=False),
        sa.Column("owner", _ID, nullable=False),
        sa.Column("beat_s", sa.Double, nullable=False),
        sa.Column("watched_s", sa.Double, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
    )
    op.create_index("ix_turns_visitor_created", "turns", ["visitor_id", "created_s"])
    op.create_index("ix_turns_address_created", "turns", ["address", "created_s"])
    op.create_index("ix_turns_created", "turns", ["created_s"])


def _votes() -> None:
    op.create_table(
        "votes",
        sa.Column("battle_id", _ID, sa.ForeignKey("battles.id"), primary_key=True),
        sa.Column("created_s", sa.Double, nullable=False, index=True),
        sa.Column("visitor_id", _ID, sa.ForeignKey("visitors.id"), nullable=False, index=True),
        sa.Column("address", sa.String(16), nullable=False, index=True),
        sa.Column("verdict", sa.String(8), nullable=False),
        sa.Column("left_out_by", sa.String(40), nullable=False),
    )


def downgrade() -> None:
    for table in ("log", "votes", "turns", "conversations", "battles", "visitors", "secrets"):
        op.drop_table(table)
