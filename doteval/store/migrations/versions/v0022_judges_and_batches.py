"""Marks of the calls that judges make, and of the usage of batches. Which older calls were a judge's is not known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

# Usage of batches had positions from here on.
_FIRST_OF_BATCHES = 1_000_000


def upgrade() -> None:
    for table in ("call", "usage", "wanted_call"):
        op.add_column(table, sa.Column("judge", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("usage", sa.Column("batch", sa.Boolean(), nullable=False, server_default=sa.false()))
    usage = sa.table("usage", *map(sa.column, ("position", "batch", "cost", "batch_cost")))
    of_batches = usage.c.position >= _FIRST_OF_BATCHES
    op.execute(sa.update(usage).where(of_batches).values(batch=sa.true(), batch_cost=usage.c.cost))
