"""A random token identifies a process, in place of its hostname and pid, which others may have too.

Processes of an older release have none. They live while they send heartbeats, and nobody takes them for others.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("worker", sa.Column("token", sa.Text(), nullable=True))
    op.add_column("worker", sa.Column("supervisor", sa.Text(), nullable=True))
    op.add_column("worker", sa.Column("pid_space", sa.Text(), nullable=True))
    op.create_index("worker_token", "worker", ["token"], unique=True)
