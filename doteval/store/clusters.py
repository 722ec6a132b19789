"""Reads the clusters of rows, for intervals of means whose rows are not independent.

It is imported only where they are asked for, since the arrays take numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

from doteval.analysis.clusters import RowClusters, with_clusters
from doteval.analysis.summary import Summary
from doteval.core.experiments import Evaluation
from doteval.core.plugins import did_you_mean
from doteval.errors import UsageError
from doteval.store.score_arrays import read_arrays, read_clusters
from doteval.store.store import Store


def check_columns(evaluations: Sequence[Evaluation], column: str) -> None:
    """Check that rows of evaluations can be clustered by a column, before anything is read or shown.

    Raises UsageError: an evaluation has no such column.
    """
    for each in evaluations:
        if column not in each.spec.columns:
            raise UsageError(
                f"the rows of {each.spec.nodeid} have no column {column!r} to cluster by",
                remedy=did_you_mean(column, each.spec.columns),
            )


def clusters_of(store: Store, evaluation: Evaluation, column: str) -> RowClusters:
    """The cluster of each row of an evaluation, by the value of a column.

    Raises UsageError: a row does not have the column.
    """
    return read_clusters(store._database, evaluation, column)


def clustered_summary(store: Store, evaluation: Evaluation, summary: Summary, column: str) -> Summary:
    """The metrics of an evaluation with the intervals that take rows with one value in a column as one unit.

    Raises UsageError: a row does not have the column.
    """
    return with_clusters(summary, read_arrays(store._database, evaluation, column), column)
