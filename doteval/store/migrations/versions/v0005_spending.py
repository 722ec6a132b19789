"""What each worker process has spent for an evaluation, without a scan of its usage: budgets want it at any time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for name in ("attempts", "tokens", "unpriced"):
        op.add_column("tally", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("tally", sa.Column("cost", sa.Float(), nullable=False, server_default="0"))
    op.execute(
        """
        INSERT INTO tally (evaluation_id, worker_id, done, failed, skipped, attempts, tokens, unpriced, cost)
        SELECT evaluation_id, coalesce(worker_id, 0), 0, 0, 0,
            sum(attempts), sum(prompt_tokens + completion_tokens),
            sum(CASE WHEN cost IS NULL THEN prompt_tokens + completion_tokens ELSE 0 END), coalesce(sum(cost), 0)
        FROM usage
        WHERE true
        GROUP BY 1, 2
        ON CONFLICT (evaluation_id, worker_id) DO UPDATE SET
            attempts = excluded.attempts, tokens = excluded.tokens, unpriced = excluded.unpriced, cost = excluded.cost
        """
    )
