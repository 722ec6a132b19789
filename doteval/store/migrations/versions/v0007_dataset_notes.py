"""Evaluations hold what a reader of their figures has to know about their datasets.

Of datasets that were read before, nothing is known.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("evaluation", sa.Column("dataset_notes", sa.Text(), nullable=True))
