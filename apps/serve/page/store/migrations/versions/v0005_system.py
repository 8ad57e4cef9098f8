"""Each question gets its system message: that of its conversation, where it was asked earlier."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    column = sa.Column("system", sa.Text, nullable=False, server_default="")
    with op.batch_alter_table("turns") as turns:
        turns.add_column(column)
    connection = op.get_bind()
    fill = sa.text("UPDATE turns SET system = :system WHERE conversation_id = :id")
    for id, settings in connection.execute(sa.text("SELECT id, settings FROM conversations")).all():
        given = json.loads(settings) if isinstance(settings, str) else settings
        if system := given.get("system"):
            connection.execute(fill, {"system": str(system), "id": id})


def downgrade() -> None:
    with op.batch_alter_table("turns") as turns:
        turns.drop_column("system")
