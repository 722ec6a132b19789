"""The evaluation files that worker processes have read. Those of earlier processes are not known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("worker", sa.Column("code", sa.Text(), nullable=True))
