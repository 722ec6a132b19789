"""Means of scores by groups of results, such as those of one category, with their intervals."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING

from doteval.core.results import RowStatus
from doteval.metrics.intervals import Interval, wilson

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True)
class AlignedScore:
    """The values of one score, one for each result that is done, in the order of the results.

    only_bools: whether all of them are true or false.
    """

    name: str
    numbers: NDArray[numpy.float64]
    only_bools: bool


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
            else:
                # A row that failed counts as false, whatever scores it has.
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

    def add_aligned(
        self, indexes: Sequence[int], statuses: Sequence[str], groups: Sequence[Group], scores: Sequence[AlignedScore]
    ) -> None:
        """Add results of which each that is done has all of the scores, in the order of the results."""
        import numpy

        if len(set(statuses)) > 1 or statuses[0] != RowStatus.DONE:
            others = zip(indexes, repeat(0), statuses, groups)
            self.add((line for line in others if line[2] != RowStatus.DONE), ())
            done = [place for place, status in enumerate(statuses) if status == RowStatus.DONE]
            indexes, groups = [indexes[place] for place in done], [groups[place] for place in done]
        code_of = {group: code for code, group in enumerate(dict.fromkeys(groups))}
        codes = numpy.fromiter(map(code_of.__getitem__, groups), dtype=numpy.int64, count=len(groups))
        order = numpy.argsort(codes, kind="stable")
        ends = numpy.cumsum(numpy.bincount(codes)).tolist()
        rows = numpy.array(indexes, dtype=numpy.int64)[order]
        for group, first, end in zip(code_of, [0, *ends], ends, strict=False):
            gathered = self._groups.setdefault(group, _Gathered())
            gathered.results += end - first
            for score in scores:
                values = gathered.scores.setdefault(score.name, _Values())
                values.numbers.frombytes(score.numbers[order[first:end]].tobytes())
                values.rows.frombytes(rows[first:end].tobytes())
                values.only_bools = values.only_bools and score.only_bools

    def __len__(self) -> int:
        """The number of groups so far."""
        return len(self._groups)

    def summaries(self, *, failed_as_false: bool = True, clusters: RowClusters | None = None) -> list[GroupSummary]:
        """The groups, the largest first.

        failed_as_false: whether a failed row counts as 0 in each score, as in the metrics of an evaluation
        clusters: the cluster of each row, where rows are not independent

        The interval is Wilson's of true/false scores, `doteval.metrics.studentized.units_interval` of others, or
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
    numbers = array("d", (sum(each) / len(each) for each in by_row.values())) if by_row else values.numbers
    mean = sum(numbers) / len(numbers)
    if clusters is not None:
        import numpy

        from doteval.analysis.clusters import clustered_interval

        rows = numpy.array(list(by_row) if by_row else values.rows, dtype=numpy.int64)
        interval = clustered_interval(numpy.array(numbers), clusters.of(rows), of_shares=values.only_bools)
        return GroupScore(mean, interval, len(numbers))
    if values.only_bools and not by_row:
        # Shares of true values have another interval than means of numbers.
        return GroupScore(mean, wilson(numbers.count(1.0), len(numbers)), len(numbers))
    import numpy

    from doteval.metrics.studentized import units_interval

    interval = units_interval(numpy.array(numbers), numpy.ones(len(numbers)))
    return GroupScore(mean, interval, len(numbers))
