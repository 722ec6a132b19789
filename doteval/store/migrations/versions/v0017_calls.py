"""The calls of rows, with their requests and replies; and how many rows paid for calls again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "call",
        sa.Column("evaluation_id", sa.Integer(), primary_key=True),
        sa.Column("row_index", sa.BigInteger(), primary_key=True),
        sa.Column("sample", sa.Integer(), primary_key=True),
        sa.Column("execution", sa.BigInteger(), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Float(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
    )
    op.add_column("evaluation", sa.Column("repaid_rows", sa.BigInteger(), nullable=False, server_default="0"))
