"""Tries that began and of which nobody saw the end. Earlier releases did not count such tries at all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("usage", sa.Column("unfinished", sa.BigInteger(), nullable=False, server_default="0"))
