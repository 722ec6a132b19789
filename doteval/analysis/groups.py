"""Means of scores by groups of results, such as those of one category, with their intervals."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from doteval.core.results import RowStatus
from doteval.metrics.intervals import Interval, mean_interval

Group = float | str | None


@dataclass(frozen=True, slots=True)
class GroupedResult:
    """One result in a group.

    group: the value of the field: a number, a text, or None.
    scores: its scores by name as numbers, and whether each is true or false; without those that are none.
    """

    index: int
    group: Group
    status: RowStatus
    scores: tuple[tuple[str, float, bool], ...]


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


@dataclass(slots=True)
class _Values:
    numbers: array[float] = field(default_factory=lambda: array("d"))
    rows: array[int] = field(default_factory=lambda: array("q"))
    only_bools: bool = True

    def add(self, index: int, number: float, *, is_bool: bool) -> None:
        self.numbers.append(number)
        self.rows.append(index)
        self.only_bools &= is_bool


@dataclass(slots=True)
class _Gathered:
    failed_rows: list[int] = field(default_factory=list)
    results: int = 0
    skipped: int = 0
    scores: dict[str, _Values] = field(default_factory=dict)


def summarize_groups(results: Iterable[GroupedResult], *, failed_as_false: bool = True) -> list[GroupSummary]:
    """Summarize results by group, the largest group first.

    failed_as_false: whether a failed row counts as 0 in each score, as in the metrics of an evaluation

    The interval is that of `doteval.metrics.intervals.mean_interval`. The samples of a row are averaged first, since
    they are not independent.

    >>> one = GroupedResult(0, "geo", RowStatus.DONE, (("exact_match", 1.0, True),))
    >>> summarize_groups([one, GroupedResult(1, "geo", RowStatus.FAILED, ())])[0].scores["exact_match"].mean
    0.5
    """
    groups: dict[Group, _Gathered] = {}
    names: dict[str, bool] = {}
    for result in results:
        gathered = groups.setdefault(result.group, _Gathered())
        gathered.results += 1
        if result.status is RowStatus.FAILED:
            gathered.failed_rows.append(result.index)
        elif result.status is RowStatus.SKIPPED:
            gathered.skipped += 1
        for name, number, is_bool in result.scores:
            gathered.scores.setdefault(name, _Values()).add(result.index, number, is_bool=is_bool)
            names[name] = names.get(name, True) and is_bool
    return sorted(
        (_summary(group, gathered, names, failed_as_false) for group, gathered in groups.items()),
        key=lambda summary: -summary.results,
    )


def _summary(group: Group, gathered: _Gathered, names: dict[str, bool], failed_as_false: bool) -> GroupSummary:
    scores = {}
    for name, only_bools in names.items():
        values = gathered.scores.get(name, _Values())
        if failed_as_false:
            for index in gathered.failed_rows:
                values.add(index, 0.0, is_bool=only_bools)
        if values.numbers:
            scores[name] = _score(values)
    return GroupSummary(group, gathered.results, len(gathered.failed_rows), gathered.skipped, scores)


def _score(values: _Values) -> GroupScore:
    by_row: dict[int, list[float]] = {}
    if len(set(values.rows)) < len(values.rows):
        for index, number in zip(values.rows, values.numbers, strict=True):
            by_row.setdefault(index, []).append(number)
    numbers = [sum(each) / len(each) for each in by_row.values()] if by_row else list(values.numbers)
    # Shares of true values have another interval than means of numbers.
    kept = [number == 1.0 for number in numbers] if values.only_bools and not by_row else numbers
    return GroupScore(sum(numbers) / len(numbers), mean_interval(kept), len(numbers))
