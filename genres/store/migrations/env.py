"""Alembic's entry: runs the migrations on the connection that ``genres.store.database`` hands over."""

from alembic import context

from genres.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite changes a column by rebuilding the table
)
with context.begin_transaction():
    context.run_migrations()
