"""Reads the clusters of rows, for intervals of means whose rows are not independent.

It is imported only where they are asked for, since the arrays take numpy.
"""

from __future__ import annotations

from doteval.analysis.clusters import RowClusters, with_clusters
from doteval.analysis.summary import Summary
from doteval.core.experiments import Evaluation
from doteval.store.score_arrays import read_arrays, read_clusters
from doteval.store.store import Store


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
