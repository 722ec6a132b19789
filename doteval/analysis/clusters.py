"""Intervals of means over clustered rows, such as several questions about one text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy
from numpy.typing import NDArray

from doteval.analysis.paired_scores import row_values
from doteval.analysis.score_arrays import EvaluationArrays, Numbers, Places, group_numbers
from doteval.analysis.summary import MetricValue, Summary
from doteval.core.wording import counted
from doteval.errors import DotEvalError
from doteval.metrics import Interval, resolve
from doteval.metrics.intervals import narrowed, wilson
from doteval.metrics.studentized import units_interval


@dataclass(frozen=True, slots=True)
class RowClusters:
    """The cluster of each row: `numbers` has it for each of the ascending `indexes` of the dataset."""

    indexes: Places
    numbers: Places

    def of(self, indexes: NDArray[Any]) -> Places:
        """The clusters of rows by their indexes."""
        return self.numbers[numpy.searchsorted(self.indexes, indexes)]


def clustered_interval(values: Numbers, clusters: Places, *, of_shares: bool = False) -> Interval | None:
    """The interval of the mean of values, of which those of one cluster are not independent.

    It is that of `doteval.metrics.studentized.units_interval` with clusters as units. Shares between 0 and 1 have no
    wider one than Wilson's for as many true/false values as there are clusters; with unequal clusters, for the number
    (Σ size)² / Σ size² of equal ones that say as much (L. Kish, Survey Sampling, 1965, section 8.2).

    >>> found = clustered_interval(numpy.repeat([2.0, 5.0, 3.0, 4.0], 5), numpy.repeat([0, 1, 2, 3], 5))
    >>> f"{found.low:.2f} {found.high:.2f} {found.method}"
    '1.26 6.73 bootstrap-t-clustered'
    """
    _, places = numpy.unique(clusters, return_inverse=True)
    sizes = numpy.bincount(places).astype(numpy.float64)
    if len(sizes) < 2:
        return None
    found = units_interval(numpy.bincount(places, values).astype(numpy.float64), sizes)
    bounds = None
    if of_shares and values.min() >= 0 and values.max() <= 1:
        equal = float(sizes.sum()) ** 2 / float(sizes @ sizes)
        bounds = wilson(float(values.mean()) * equal, equal)
    found = narrowed(found, bounds)
    return None if found is None else replace(found, method=f"{found.method}-clustered")


def with_clusters(summary: Summary, arrays: EvaluationArrays, column: str) -> Summary:
    """A summary whose intervals of means are clustered; other metrics have none.

    arrays: the scores of the same evaluation, with the cluster of each row.
    column: the name of the column that says to which cluster a row belongs, for the notes.
    """
    assert arrays.clusters is not None
    numbers = group_numbers(arrays.clusters)
    scores = []
    for score in summary:
        metrics = (
            _with_interval(metric, score.name, arrays, numbers, column, excluded=summary.errors_as == "excluded")
            for metric in score.metrics
        )
        scores.append(replace(score, metrics=tuple(metrics)))
    return replace(summary, scores=tuple(scores))


def _with_interval(
    found: MetricValue, score: str, arrays: EvaluationArrays, clusters: Places, column: str, *, excluded: bool
) -> MetricValue:
    def noted(interval: Interval | None, text: str) -> MetricValue:
        return replace(found, interval=interval, note="; ".join(filter(None, (found.note, text))))

    if found.value is None or score not in arrays.scores:
        return replace(found, interval=None)
    try:
        calculation = resolve(found.name, arrays.files).calculation
    except DotEvalError:
        return noted(None, f"no interval by {column}: the metric is not known here")
    if not calculation.average:
        return noted(None, f"no interval by {column}: the metric is not a mean")
    if excluded:
        calculation = replace(calculation, failed_as_false=False)
    values = row_values(arrays, arrays.scores[score], numpy.arange(len(arrays)), calculation).values
    known = ~numpy.isnan(values)
    of_shares = arrays.scores[score].only_true_false or found.name == "accuracy"
    interval = clustered_interval(values[known], clusters[known], of_shares=of_shares)
    units = counted(len(numpy.unique(clusters[known])), "cluster")
    if interval is None:
        return noted(None, f"no interval by {column}: {units} do not say how much the means of clusters vary")
    return noted(interval, f"interval of {units} by {column}")
