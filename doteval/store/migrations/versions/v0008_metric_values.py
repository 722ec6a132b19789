"""The store keeps the metric values of evaluations that have ended, so that reading them needs no evaluation file.

Evaluations that ended before have none stored; their metrics are computed when they are read.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "summary",
        sa.Column("evaluation_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("finished_at", sa.Float(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "metric_value",
        sa.Column("evaluation_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("errors_as", sa.Text(), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("score", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("left_out", sa.BigInteger(), nullable=False),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True),
        sa.Column("interval_method", sa.Text(), nullable=True),
        sa.Column("without_failed", sa.Float(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
    )
