"""Usage says how long rows waited for limits, and how long replies took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("usage", sa.Column("waited", sa.Float(), nullable=False, server_default="0"))
    op.add_column("usage", sa.Column("latency", sa.Text(), nullable=False, server_default=""))
