"""Where an answer's stream stands, so that another process can go on behind it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    column = sa.Column("last_event", sa.String(256), nullable=False, server_default="")
    with op.batch_alter_table("turns") as turns:
        turns.add_column(column)


def downgrade() -> None:
    with op.batch_alter_table("turns") as turns:
        turns.drop_column("last_event")
