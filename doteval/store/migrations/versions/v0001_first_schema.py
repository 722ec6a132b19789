"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = ("evaluation_id", "row_index", "sample")

# A counted key: SQLite counts only in columns declared INTEGER, which hold 64 bits there.
_COUNTED = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _required(name: str, kind: type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind(), nullable=False)


def _optional(name: str, kind: type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind(), nullable=True)


def _place() -> list[sa.Column[Any]]:
    return [
        _required("evaluation_id", sa.Integer),
        _required("row_index", sa.BigInteger),
        _required("sample", sa.Integer),
    ]


def _outcome() -> list[sa.Column[Any]]:
    return [
        _required("execution", sa.BigInteger),
        _optional("worker_id", sa.Integer),
        _required("started_at", sa.Float),
        _required("seconds", sa.Float),
        _optional("prompt", sa.Text),
        _optional("model_response", sa.Text),
        _optional("extra", sa.Text),
        _optional("error_type", sa.Text),
        _optional("error_message", sa.Text),
        _optional("error_class", sa.Text),
        _optional("traceback", sa.Text),
    ]


def upgrade() -> None:
    op.create_table(
        "experiment",
        sa.Column("id", sa.Integer(), primary_key=True),
        _required("name", sa.Text),
        _required("created_at", sa.Float),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "evaluation",
        sa.Column("id", sa.Integer(), primary_key=True),
        _required("uid", sa.Text),
        sa.Column("experiment_id", sa.Integer(), sa.ForeignKey("experiment.id"), nullable=False),
        _required("path", sa.Text),
        _required("name", sa.Text),
        _required("columns", sa.Text),
        _required("fingerprint", sa.Text),
        _required("extra", sa.Text),
        _required("epochs", sa.Integer),
        _required("status", sa.Text),
        _optional("reason", sa.Text),
        _required("created_at", sa.Float),
        _optional("finished_at", sa.Float),
        _required("published", sa.BigInteger),
        _optional("row_count", sa.BigInteger),
        _required("dataset_complete", sa.Boolean),
        _optional("dataset_fingerprint", sa.Text),
        sa.UniqueConstraint("uid"),
        sa.UniqueConstraint("experiment_id", "path", "name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "row",
        sa.Column("evaluation_id", sa.Integer(), sa.ForeignKey("evaluation.id"), nullable=False),
        _required("row_index", sa.BigInteger),
        _required("key", sa.Text),
        _required("content", sa.Text),
        sa.PrimaryKeyConstraint("evaluation_id", "row_index"),
    )
    op.create_table(
        "result",
        *_place(),
        _required("status", sa.Text),
        _required("retry", sa.Boolean),
        *_outcome(),
        sa.PrimaryKeyConstraint(*_KEY),
    )
    op.create_index(
        "result_not_done",
        "result",
        ["evaluation_id", "status", "row_index", "sample"],
        sqlite_where=sa.text("status <> 'done'"),
        postgresql_where=sa.text("status <> 'done'"),
    )
    op.create_table(
        "score",
        *_place(),
        _required("position", sa.Integer),
        _required("name", sa.Text),
        _required("metrics", sa.Text),
        _required("value", sa.Text),
        _optional("extra", sa.Text),
        sa.PrimaryKeyConstraint(*_KEY, "position"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "attempt",
        sa.Column("id", _COUNTED, primary_key=True),
        *_place(),
        _required("status", sa.Text),
        *_outcome(),
        _required("scores", sa.Text),
    )
    op.create_index("attempt_row", "attempt", _KEY)
    op.create_table(
        "usage",
        *_place(),
        _required("execution", sa.BigInteger),
        _required("position", sa.Integer),
        _optional("worker_id", sa.Integer),
        _required("model", sa.Text),
        _required("requests", sa.BigInteger),
        _required("attempts", sa.BigInteger),
        _required("cache_hits", sa.BigInteger),
        _required("cache_misses", sa.BigInteger),
        _required("prompt_tokens", sa.BigInteger),
        _required("completion_tokens", sa.BigInteger),
        _required("cached_tokens", sa.BigInteger),
        _required("reasoning_tokens", sa.BigInteger),
        _optional("cost", sa.Float),
        _required("seconds", sa.Float),
        sa.PrimaryKeyConstraint(*_KEY, "execution", "position"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tally",
        _required("evaluation_id", sa.Integer),
        _required("worker_id", sa.Integer),
        _required("done", sa.BigInteger),
        _required("failed", sa.BigInteger),
        _required("skipped", sa.BigInteger),
        sa.PrimaryKeyConstraint("evaluation_id", "worker_id"),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.Integer(), primary_key=True),
        _required("service", sa.Text),
        _required("hostname", sa.Text),
        _required("pid", sa.BigInteger),
        _required("queues", sa.Text),
        _required("concurrency", sa.Integer),
        _required("versions", sa.Text),
        _required("state", sa.Text),
        _required("holding", sa.Text),
        _required("started_at", sa.Float),
        _required("beat_at", sa.Float),
        _optional("left_at", sa.Float),
        _optional("reason", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "resource_load",
        sa.Column("id", sa.Integer(), primary_key=True),
        _required("worker_id", sa.Integer),
        _optional("evaluation_id", sa.Integer),
        _required("fixture", sa.Text),
        _required("scope_node", sa.Text),
        _required("loaded_at", sa.Float),
        _required("seconds", sa.Float),
        _optional("error", sa.Text),
        _optional("stats", sa.Text),
        _optional("torn_down_at", sa.Float),
        _optional("teardown_seconds", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_resource_load_worker_id", "resource_load", ["worker_id"])
    op.create_index("ix_resource_load_evaluation_id", "resource_load", ["evaluation_id"])
