"""Since when the broker of a worker process does not answer it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("worker", sa.Column("broker_silent_since", sa.Float(), nullable=True))
