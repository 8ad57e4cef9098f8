"""Look-ups in training data, which count as requests for a day."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "lookups",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("visitor_id", sa.String(32), sa.ForeignKey("visitors.id"), nullable=False),
        sa.Column("address", sa.String(16), nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
    )
    op.create_index("ix_lookups_visitor_created", "lookups", ["visitor_id", "created_s"])
    op.create_index("ix_lookups_address_created", "lookups", ["address", "created_s"])
    op.create_index("ix_lookups_created", "lookups", ["created_s"])


def downgrade() -> None:
    op.drop_table("lookups")
