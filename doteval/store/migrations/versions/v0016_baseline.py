"""An experiment can be the baseline of the store; older stores have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("experiment", sa.Column("baseline_since", sa.Float(), nullable=True))
