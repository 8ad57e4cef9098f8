"""What the limits count gets a table of its own, which no visitor can delete from."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INDEXES = (("visitor_created", "visitor_id"), ("address_created", "address"), ("created", ""))
_COLUMNS = "id, visitor_id, address, created_s"


def upgrade() -> None:
    _make("requests", sa.Column("tokens", sa.Integer, nullable=False))
    into = f"INSERT INTO requests ({_COLUMNS}, tokens)"
    op.execute(f"{into} SELECT {_COLUMNS}, completion_tokens FROM turns")
    op.execute(f"{into} SELECT {_COLUMNS}, 0 FROM lookups")
    op.drop_table("lookups")
    op.drop_index("ix_turns_address_created", "turns")
    with op.batch_alter_table("turns") as turns:
        turns.drop_column("address")
        turns.drop_column("completion_tokens")


def downgrade() -> None:
    with op.batch_alter_table("turns") as turns:
        turns.add_column(sa.Column("address", sa.String(16), nullable=False, server_default=""))
        turns.add_column(
            sa.Column("completion_tokens", sa.Integer, nullable=False, server_default="0")
        )
    op.create_index("ix_turns_address_created", "turns", ["address", "created_s"])
    _make("lookups")
    op.drop_table("requests")


def _make(table: str, *columns: sa.Column[int]) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("visitor_id", sa.String(32), sa.ForeignKey("visitors.id"), nullable=False),
        sa.Column("address", sa.String(16), nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        *columns,
    )
    for name, first in _INDEXES:
        op.create_index(f"ix_{table}_{name}", table, [*([first] if first else []), "created_s"])
