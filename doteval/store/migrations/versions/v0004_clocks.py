"""Worker processes tell how far their clocks are from the database's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("worker", sa.Column("clock_offset", sa.Float(), nullable=True))
