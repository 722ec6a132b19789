"""The tables of metric values: what an evaluation came to when it ended."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text
from sqlmodel import Field, SQLModel

from doteval.store.column_types import SafeText, table_of


class SummaryTable(SQLModel, table=True):
    """The end and the counts of an evaluation for which its metric values are stored.

    If the evaluation has another end or other counts by now, the values are those of earlier results.

    done: results with this status.
    failed: results with this status.
    skipped: results with this status.
    """

    __tablename__ = "summary"

    evaluation_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    finished_at: float
    done: int = Field(sa_type=BigInteger)
    failed: int = Field(sa_type=BigInteger)
    skipped: int = Field(sa_type=BigInteger)


class MetricValueTable(SQLModel, table=True):
    """The value of one metric of one score, when its evaluation ended; see `doteval.analysis.summary.MetricValue`.

    errors_as: how failed rows are counted: `false` or `excluded`.
    metric: the name of the metric, None for a score that has none.
    score: the name of the score.
    value: the value, None if the metric cannot be computed.
    n: values that the metric was computed from.
    failed: failed rows among them, which count as False.
    left_out: done and failed rows that are not among them.
    low: the lower end of the 95% interval.
    high: its upper end.
    interval_method: how it was computed.
    without_failed: the value without failed rows.
    note: what a reader of the value has to know.
    """

    __tablename__ = "metric_value"

    evaluation_id: int = Field(primary_key=True)
    errors_as: str = Field(primary_key=True, sa_type=Text)
    position: int = Field(primary_key=True)
    score: str = Field(sa_type=SafeText)
    metric: str | None = Field(sa_type=SafeText)
    value: float | None
    n: int = Field(sa_type=BigInteger)
    failed: int = Field(sa_type=BigInteger)
    left_out: int = Field(sa_type=BigInteger)
    low: float | None
    high: float | None
    interval_method: str | None = Field(sa_type=Text)
    without_failed: float | None
    note: str | None = Field(sa_type=SafeText)


SUMMARY = table_of(SummaryTable)
METRIC_VALUE = table_of(MetricValueTable)
