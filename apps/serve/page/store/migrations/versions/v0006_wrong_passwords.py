"""Wrong passwords are counted, for all processes of the page together."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "wrong_passwords",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("address", sa.String(16), nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
    )
    op.create_index("ix_wrong_passwords_created_s", "wrong_passwords", ["created_s"])


def downgrade() -> None:
    op.drop_table("wrong_passwords")
