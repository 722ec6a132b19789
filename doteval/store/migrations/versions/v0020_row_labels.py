"""What people say of the results of rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_table(
        "row_label",
        sa.Column("evaluation_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("row_index", sa.BigInteger(), primary_key=True),
        sa.Column("sample", sa.Integer(), primary_key=True),
        sa.Column("person", sa.Text(), primary_key=True),
        sa.Column("execution", sa.BigInteger(), nullable=False),
        sa.Column("judgement", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("labelled_at", sa.Float(), nullable=False),
    )
