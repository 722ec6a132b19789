"""How long evaluations were worked on: the seconds of their running spans, and when results were last written.

For an evaluation of an older release only its beginning and its end are known.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("evaluation", sa.Column("worked_seconds", sa.Float(), nullable=False, server_default="0"))
    op.add_column("evaluation", sa.Column("span_began_at", sa.Float(), nullable=True))
    op.add_column("counters", sa.Column("wrote_at", sa.Float(), nullable=True))
    op.execute("UPDATE evaluation SET worked_seconds = finished_at - created_at WHERE finished_at > created_at")
    op.execute("UPDATE evaluation SET span_began_at = created_at WHERE status = 'running'")
    op.execute("""
        UPDATE counters SET wrote_at = (
            SELECT max(started_at + seconds) FROM result WHERE result.evaluation_id = counters.evaluation_id
        )
        WHERE worker_id <> 0 AND evaluation_id IN (SELECT id FROM evaluation WHERE status = 'running')
    """)
