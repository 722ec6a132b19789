"""Experiments get tags, a note and the commands that ran them; scores get their value as a number.

Who ran the experiments of older releases, from which commit, is not known.
"""

from __future__ import annotations

import math

import sqlalchemy as sa
from alembic import op

from doteval.core.json_codec import decode

revision = "0012"
down_revision = "0011"

_SCORE = sa.table(
    "score",
    *(sa.column(name, sa.Integer) for name in ("evaluation_id", "row_index", "sample", "position")),
    sa.column("value", sa.Text),
    sa.column("number", sa.Float),
)
_KEY = ("evaluation_id", "row_index", "sample", "position")
_PAGE = 5000


def upgrade() -> None:
    op.add_column("experiment", sa.Column("note", sa.Text(), nullable=True))
    op.add_column("evaluation", sa.Column("rows_hash", sa.Text(), nullable=True))
    op.create_table(
        "experiment_tag",
        sa.Column("experiment_id", sa.Integer(), sa.ForeignKey("experiment.id"), primary_key=True),
        sa.Column("tag", sa.Text(), primary_key=True),
    )
    op.create_table(
        "provenance",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("experiment_id", sa.Integer(), sa.ForeignKey("experiment.id"), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("git_commit", sa.Text(), nullable=True),
        sa.Column("git_branch", sa.Text(), nullable=True),
        sa.Column("git_dirty", sa.Boolean(), nullable=True),
        sa.Column("hostname", sa.Text(), nullable=True),
        sa.Column("username", sa.Text(), nullable=True),
        sa.Column("versions", sa.Text(), nullable=False),
    )
    op.create_index("ix_provenance_experiment_id", "provenance", ["experiment_id"])
    op.add_column("score", sa.Column("number", sa.Float(), nullable=True))
    op.execute(
        "UPDATE score SET number = CASE value WHEN 'true' THEN 1.0 ELSE 0.0 END WHERE value IN ('true', 'false')"
    )
    # Plain numbers as JSON has them; other values begin with a quote, a bracket, a brace or a letter.
    op.execute("""
        UPDATE score SET number = CAST(value AS DOUBLE PRECISION)
        WHERE substr(value, 1, 1) IN ('-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """)
    _convert_other_values(op.get_bind())


def _convert_other_values(connection: sa.Connection) -> None:
    """Convert values of libraries and pairs, which only Python reads, in pages."""
    key = sa.tuple_(*(_SCORE.c[name] for name in _KEY))
    after = (-1, -1, -1, -1)
    while True:
        page = connection.execute(
            sa.select(_SCORE)
            .where(sa.func.substr(_SCORE.c.value, 1, 1).in_(["[", "{"]), key > sa.tuple_(*after))
            .order_by(*(_SCORE.c[name] for name in _KEY))
            .limit(_PAGE)
        ).all()
        for line in page:
            number = _number(decode(line.value))
            if number is not None:
                of_line = [_SCORE.c[name] == getattr(line, name) for name in _KEY]
                connection.execute(sa.update(_SCORE).where(*of_line).values(number=number))
        if len(page) < _PAGE:
            return
        after = tuple(getattr(page[-1], name) for name in _KEY)


def _number(value: object) -> float | None:
    if isinstance(value, tuple | list):
        return float(value[0] == value[1]) if len(value) == 2 else None
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
