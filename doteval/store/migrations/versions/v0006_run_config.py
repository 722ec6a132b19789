"""How an evaluation's rows are run has a typed and versioned form, in place of free entries."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from doteval.core.json_codec import decode, encode

revision = "0006"
down_revision = "0005"

_EVALUATION = sa.table("evaluation", sa.column("id", sa.Integer), sa.column("run_config", sa.Text))


def upgrade() -> None:
    op.execute("ALTER TABLE evaluation RENAME COLUMN extra TO run_config")
    connection = op.get_bind()
    for line in connection.execute(sa.select(_EVALUATION)).all():
        changed = encode(_run_config(decode(line.run_config)))
        connection.execute(sa.update(_EVALUATION).where(_EVALUATION.c.id == line.id).values(run_config=changed))


def _run_config(extra: dict[str, Any]) -> dict[str, Any]:
    """Version 1 of the run configuration, from the entries of schema version 0005.

    It names the keys and defaults of that time, and so does not use the code of today.
    """
    policy, budget = extra.get("policy"), extra.get("budget") or {}
    # Only submitted evaluations had a policy.
    called = {"retries": 3, "delay": 1.0, "timeout": None, **(policy or {})}
    return {
        "version": 1,
        "max_retries": called["retries"],
        "retry_delay": called["delay"],
        "row_timeout": called["timeout"],
        "max_crashes": extra.get("max_crashes", 2),
        "max_requests": budget.get("requests"),
        "max_tokens": budget.get("tokens"),
        "max_cost": budget.get("cost"),
        "cache": extra.get("cache"),
        "submitted": policy is not None,
        "root": extra.get("root"),
        "queue": extra.get("queue"),
        "queue_is_own": bool(extra.get("placed")),
        "private_broker": extra.get("private"),
        "batch_size": extra.get("batch_size"),
        "concurrency": extra.get("concurrency"),
        "concurrency_is_own": bool(extra.get("own_concurrency")),
    }
