"""Evaluations that were skipped have a status of their own, where they were completed with a cause."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("""
        UPDATE evaluation
        SET status = 'skipped', reason = CASE WHEN reason LIKE 'skipped: %' THEN substr(reason, 10) ELSE reason END
        WHERE status = 'completed' AND end_cause = 'skipped'
    """)
