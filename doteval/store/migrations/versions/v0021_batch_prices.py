"""What tokens would have cost in batches, for estimates. Of usage of older releases it is not known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("usage", sa.Column("batch_cost", sa.Float(), nullable=True))
