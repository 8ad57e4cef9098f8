"""Alembic runs this file for every migration; the connection is the caller's."""

from alembic import context

from apps.serve.page.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
