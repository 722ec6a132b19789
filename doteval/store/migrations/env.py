"""Alembic runs this file: it runs the migrations on the connection and in the transaction of the caller."""

from alembic import context
from sqlmodel import SQLModel

from doteval.store import tables  # noqa: F401 (fills the metadata, for `alembic check`)
from doteval.store.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
