"""Evaluations get a typed and versioned run configuration; how things end becomes a column of its own.

Until 0005 the cause of an end could be read only from the beginning of the text for people. It is read here one last
time; what no release has written gets the general cause.
"""

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
    op.rename_table("tally", "counters")
    op.add_column("evaluation", sa.Column("end_cause", sa.Text(), nullable=True))
    op.add_column("worker", sa.Column("end_cause", sa.Text(), nullable=True))
    op.add_column("worker", sa.Column("exit_code", sa.Integer(), nullable=True))
    op.add_column("resource_load", sa.Column("failure", sa.Text(), nullable=True))
    for statement in (_EVALUATION_ENDS, _WORKER_ENDS, _FAILURES, _SKIPS):
        op.execute(statement)


_EVALUATION_ENDS = """
    UPDATE evaluation SET end_cause = CASE
        WHEN status = 'cancelled' AND reason LIKE 'the budget of % cannot be kept: %' THEN 'budget_unpriced'
        WHEN status = 'cancelled' AND reason LIKE 'the budget %' THEN 'budget_used_up'
        WHEN status = 'cancelled' AND reason = 'interrupted' THEN 'interrupted'
        WHEN status = 'cancelled' THEN 'cancelled_by_user'
        WHEN status = 'completed' AND reason LIKE 'skipped: %' THEN 'skipped'
        WHEN status = 'failed' AND reason LIKE '% failed on every worker process: %' THEN 'fixtures_failed'
        WHEN status = 'failed' AND reason LIKE 'more than % rows have failed' THEN 'too_many_errors'
        WHEN status = 'failed' THEN 'error'
    END
"""
_WORKER_ENDS = """
    UPDATE worker SET end_cause = CASE
        WHEN reason LIKE 'was stuck: %' OR reason LIKE 'was killed: %' THEN 'stuck'
        WHEN reason LIKE 'was killed by %' THEN 'killed'
        WHEN reason LIKE 'was killed, %' OR reason LIKE 'ended, %' THEN 'lost'
        WHEN reason LIKE 'left with exit code %' THEN 'exited'
        WHEN reason LIKE 'recycled %' THEN 'recycled'
        WHEN reason LIKE 'could not start: %' THEN 'failed_to_start'
        ELSE 'left'
    END
    WHERE left_at IS NOT NULL
"""
_FAILURES = """
    UPDATE resource_load SET failure = CASE
        WHEN fixture = '(evaluation files)' THEN 'other_code'
        WHEN error LIKE 'Skipped: %' THEN 'skipped'
        ELSE 'error'
    END
    WHERE error IS NOT NULL
"""
_SKIPS = """
    UPDATE resource_load SET error = substr(error, length('Skipped: ') + 1)
    WHERE failure = 'skipped' AND fixture = 'fixtures'
"""


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
