"""Means of scores by groups of results, such as those of one category, with their intervals."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from doteval.core.results import RowStatus
from doteval.metrics.intervals import Interval
from doteval.metrics.mean_intervals import mean_interval

if TYPE_CHECKING:
    from doteval.analysis.clusters import RowClusters

Group = float | str | None


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The mean of a score over a group. `n` is the number of values, of rows if they have several samples."""

    mean: float
    interval: Interval | None
    n: int


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """The results of a group, the number of them that failed and that were skipped, and the means of its scores."""

    group: Group
    results: int
    failed: int
    skipped: int
    scores: dict[str, GroupScore]


# One result: its index, sample, status and group. One score: index, sample, name, number, whether it is true or false.
ResultLine = tuple[int, int, str, Group]
ScoreLine = tuple[int, int, str, float, bool]


@dataclass(slots=True)
class _Values:
    numbers: array[float] = field(default_factory=lambda: array("d"))
    rows: array[int] = field(default_factory=lambda: array("q"))
    only_bools: bool = True


@dataclass(slots=True)
class _Gathered:
    failed_rows: list[int] = field(default_factory=list)
    results: int = 0
    skipped: int = 0
    scores: dict[str, _Values] = field(default_factory=dict)


class GroupTotals:
    """Gathers results and their scores by group, in parts; `summaries` sums them up.

    It keeps 16 bytes for each score.

    >>> totals = GroupTotals()
    >>> results = [(0, 0, "done", "geo"), (1, 0, "failed", "geo")]
    >>> totals.add(results, [(0, 0, "exact_match", 1.0, True)])
    >>> totals.summaries()[0].scores["exact_match"].mean
    0.5
    """

    def __init__(self) -> None:
        self._groups: dict[Group, _Gathered] = {}

    def add(self, results: Iterable[ResultLine], scores: Iterable[ScoreLine]) -> None:
        """Add results, and their scores; those of other results are left out."""
        groups = self._groups
        of_key: dict[tuple[int, int], _Gathered] = {}
        for index, sample, status, group in results:
            gathered = groups.get(group)
            if gathered is None:
                gathered = groups[group] = _Gathered()
            gathered.results += 1
            if status == RowStatus.FAILED:
                gathered.failed_rows.append(index)
            elif status == RowStatus.SKIPPED:
                gathered.skipped += 1
            of_key[index, sample] = gathered
        for index, sample, name, number, is_bool in scores:
            known = of_key.get((index, sample))
            if known is None:
                continue
            values = known.scores.get(name)
            if values is None:
                values = known.scores[name] = _Values()
            values.numbers.append(number)
            values.rows.append(index)
            if not is_bool:
                values.only_bools = False

    def summaries(self, *, failed_as_false: bool = True, clusters: RowClusters | None = None) -> list[GroupSummary]:
        """The groups, the largest first.

        failed_as_false: whether a failed row counts as 0 in each score, as in the metrics of an evaluation
        clusters: the cluster of each row, where rows are not independent

        The interval is that of `doteval.metrics.mean_intervals.mean_interval`, or of
        `doteval.analysis.clusters.clustered_interval`. The samples of a row are averaged first,
        since they are not independent.
        """
        names: dict[str, bool] = {}
        for gathered in self._groups.values():
            for name, values in gathered.scores.items():
                names[name] = names.get(name, True) and values.only_bools
        found = (_summary(group, each, names, failed_as_false, clusters) for group, each in self._groups.items())
        return sorted(found, key=lambda summary: -summary.results)


def _summary(
    group: Group,
    gathered: _Gathered,
    names: dict[str, bool],
    failed_as_false: bool,
    clusters: RowClusters | None,
) -> GroupSummary:
    scores = {}
    failed = gathered.failed_rows if failed_as_false else []
    for name, only_bools in names.items():
        values = gathered.scores.get(name, _Values(only_bools=only_bools))
        numbers, rows = values.numbers + array("d", [0.0] * len(failed)), values.rows + array("q", failed)
        if numbers:
            scores[name] = _score(_Values(numbers, rows, values.only_bools), clusters)
    return GroupSummary(group, gathered.results, len(gathered.failed_rows), gathered.skipped, scores)


def _score(values: _Values, clusters: RowClusters | None) -> GroupScore:
    by_row: dict[int, list[float]] = {}
    if len(set(values.rows)) < len(values.rows):
        for index, number in zip(values.rows, values.numbers, strict=True):
            by_row.setdefault(index, []).append(number)
    numbers = [sum(each) / len(each) for each in by_row.values()] if by_row else list(values.numbers)
    mean = sum(numbers) / len(numbers)
    if clusters is not None:
        import numpy

        from doteval.analysis.clusters import clustered_interval

        rows = numpy.array(list(by_row) if by_row else values.rows, dtype=numpy.int64)
        interval = clustered_interval(numpy.array(numbers), clusters.of(rows), of_shares=values.only_bools)
        return GroupScore(mean, interval, len(numbers))
    # Shares of true values have another interval than means of numbers.
    kept = [number == 1.0 for number in numbers] if values.only_bools and not by_row else numbers
    return GroupScore(mean, mean_interval(kept), len(numbers))
