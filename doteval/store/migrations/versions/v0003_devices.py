"""Worker processes say which device they have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("worker", sa.Column("device", sa.Text(), nullable=True))
