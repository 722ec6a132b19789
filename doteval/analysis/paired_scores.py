"""Pairs the rows of two evaluations, and estimates the difference of each metric of their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy
from numpy.typing import NDArray

from doteval.analysis.figures import figure
from doteval.analysis.paired_tests import Estimate, mean_estimate, metric_estimate, true_false_estimate
from doteval.analysis.score_arrays import (
    EvaluationArrays,
    Numbers,
    Places,
    ScoreArray,
    group_numbers,
    pair_rows,
)
from doteval.core.reducer_names import ReducerName
from doteval.errors import DotEvalError
from doteval.metrics import Calculation, NamedMetric, resolve
from doteval.metrics.intervals import as_number
from doteval.metrics.reducers import reducer

# The values of a row on either side, and its place among the pairs.
_PairedValues = tuple[list[Any], list[Any], int]

Flags = NDArray[numpy.bool_]

# Baseline index, other index, value of the baseline, value of the other, on which side the row failed.
Change = tuple[int, int, float, float, tuple[bool, bool]]


class PairedRows:
    """The rows of two evaluations, paired by key, with the cluster of each pair."""

    def __init__(self, baseline: EvaluationArrays, other: EvaluationArrays) -> None:
        self.baseline = baseline
        self.other = other
        self.pairs = pair_rows(baseline.keys, other.keys)
        self.clusters: Places | None = None
        if baseline.clusters is not None and other.clusters is not None:
            left, right = self.pairs.left, self.pairs.right
            known = numpy.where((left >= 0)[:, None], baseline.clusters[left], other.clusters[right])
            self.clusters = group_numbers(known)

    def name_of(self, side: EvaluationArrays) -> str:
        """The name of a side: its experiment, with its evaluation where both sides are of one experiment."""
        if self.baseline.experiment != self.other.experiment:
            return side.experiment
        return f"{side.experiment}::{side.name}"


@dataclass(frozen=True, slots=True)
class PairedMetric:
    """One metric of a score, estimated.

    sign: 1 if higher values are better, -1 if lower ones are.
    missing: samples without a value on one of the sides.
    worst: the estimate if they had the values that are best for the baseline and worst for the other side; None if no
        samples are missing, or if the values have no bound.
    """

    score: str
    metric: str
    sign: int
    n: int
    baseline: float
    value: float
    estimate: Estimate
    missing: int
    worst: Estimate | None
    of_shares: bool
    improved: int | None = None
    worsened: int | None = None
    changed: tuple[Change, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class NoTest:
    """A metric that cannot be compared, and why."""

    score: str
    metric: str
    n: int
    reason: str


def paired_metrics(rows: PairedRows, name: str, *, flipped: bool, changed_rows: int) -> Iterator[PairedMetric | NoTest]:
    """Estimate each metric of a score of the baseline.

    flipped: whether lower values are better, whatever the metrics say.
    """
    left = rows.baseline.scores[name]
    right = rows.other.scores.get(name)
    if right is None:
        yield NoTest(name, ", ".join(left.metrics), 0, f"{rows.name_of(rows.other)} has no score {name}")
        return
    names = tuple(dict.fromkeys((*left.metrics, *right.metrics)))
    averages: list[NamedMetric] = []
    others: list[NamedMetric] = []
    for each in names:
        try:
            metric = resolve(each, (*rows.baseline.files, *rows.other.files))
        except DotEvalError as error:
            yield NoTest(name, each, 0, f"{error.message}{_means(left, right)}")
            continue
        if metric.calculation.average:
            averages.append(metric)
        elif metric.calculation.better != "neither":
            others.append(metric)
    if not names and (numpy.isfinite(left.numbers).any() or numpy.isfinite(right.numbers).any()):
        averages = [resolve("mean")]
    # Means that count failed rows alike are one and the same figure.
    for failed_as_false in (True, False):
        alike = [metric for metric in averages if metric.calculation.failed_as_false is failed_as_false]
        if alike:
            # Accuracy is known to be a share.
            best = min(alike, key=lambda metric: metric.name != "accuracy")
            yield _mean(rows, left, right, best, _sign(best.calculation, flipped), changed_rows)
    for metric in others:
        yield _any_metric(rows, left, right, metric, _sign(metric.calculation, flipped))


def _means(left: ScoreArray, right: ScoreArray) -> str:
    """Say what is known of the values of a score with a metric that this process does not know.

    It is no comparison: the metric may be another figure than their mean, and lower values may be better.
    """
    how = "doteval compare --load-files loads the file that defines it"
    found = [score.numbers[numpy.isfinite(score.numbers)] for score in (left, right)]
    if not all(map(len, found)):
        return f"; {how}"
    means = [figure(float(numbers.mean())) for numbers in found]
    return f", and the means of the values ({means[0]} | {means[1]}) say nothing about it; {how}"


def _sign(calculation: Calculation, flipped: bool) -> int:
    return -1 if flipped or calculation.better == "lower" else 1


@dataclass(frozen=True, slots=True)
class RowValues:
    """The value of each row, on one side of pairs.

    values: NaN for a row without any sample that counts.
    missing: the number of samples without a value, failed ones included.
    failed: the number of samples that failed and count as False.
    filled: the values if each sample without one had this one; None where no one value is the best or the worst.
    binary: whether true/false samples give a row 0 or 1 and nothing in between.
    """

    values: Numbers
    missing: Numbers
    failed: Numbers
    filled: Callable[[float], Numbers] | None
    binary: bool


# Reducers that give true or false for samples that are.
_BINARY_REDUCERS = ("mode", "max", "at_least")


def row_values(side: EvaluationArrays, score: ScoreArray, places: Places, calculation: Calculation) -> RowValues:
    """The values of the rows at places of an evaluation, with the samples of a row reduced to one value."""
    finite = numpy.isfinite(score.numbers)
    rows, numbers = score.rows[finite], score.numbers[finite]
    sums = numpy.bincount(rows, numbers, minlength=len(side)).astype(numpy.float64)
    counts = numpy.bincount(rows, minlength=len(side)).astype(numpy.float64)
    failed = side.failed.astype(numpy.float64) if calculation.failed_as_false else numpy.zeros(len(side))
    if (places < 0).any():
        # The place -1 of a row that this side does not have is the end.
        sums, counts, failed = (numpy.append(part, 0.0) for part in (sums, counts, failed))
    sums, counts, failed = sums[places], counts[places], failed[places]
    missing = numpy.maximum(0.0, side.samples - counts)
    if side.samples > 1 and side.reducer not in (None, "mean"):
        return _reduced_rows(side, score, places, calculation, missing, failed)
    known = counts + failed > 0
    values = numpy.where(known, sums / numpy.where(known, counts + failed, 1.0), numpy.nan)
    return RowValues(
        values, missing, failed, lambda value: (sums + value * missing) / (counts + missing), side.samples == 1
    )


def _reduced_rows(
    side: EvaluationArrays,
    score: ScoreArray,
    places: Places,
    calculation: Calculation,
    missing: Numbers,
    failed: Numbers,
) -> RowValues:
    assert side.reducer is not None
    reduce, kind = reducer(side.reducer), ReducerName.parse(side.reducer).kind
    samples = _lists(side, score, calculation)
    done = _lists(side, score, replace(calculation, failed_as_false=False))

    def value(row: list[Any]) -> float:
        return as_number(reduce(row)) if row else numpy.nan

    def of_pairs(rows: Sequence[float], without: float) -> Numbers:
        return numpy.append(numpy.array(rows, dtype=numpy.float64), without)[places]

    def filled(number: float) -> Numbers:
        # In front, since the first of several that are most frequent is the mode.
        fills: list[Any] = [bool(number) if score.only_true_false else number]
        rows = [value(fills * (side.samples - len(row)) + row) for row in done]
        return of_pairs(rows, value(fills * side.samples))

    # One more sample may make any other number the most frequent one.
    bounded = kind != "mode" or score.only_true_false
    values = of_pairs([value(row) for row in samples], numpy.nan)
    return RowValues(values, missing, failed, filled if bounded else None, kind in _BINARY_REDUCERS)


def _mean(
    rows: PairedRows, left: ScoreArray, right: ScoreArray, metric: NamedMetric, sign: int, changed_rows: int
) -> PairedMetric | NoTest:
    try:
        sides = (
            row_values(rows.baseline, left, rows.pairs.left, metric.calculation),
            row_values(rows.other, right, rows.pairs.right, metric.calculation),
        )
    except (TypeError, ValueError, DotEvalError) as error:
        return NoTest(left.name, metric.name, 0, f"the samples of a row cannot be reduced: {error}")
    before, after = (side.values for side in sides)
    known = ~(numpy.isnan(before) | numpy.isnan(after))
    n = int(known.sum())
    if not n:
        return NoTest(left.name, metric.name, 0, "no row has a value on both sides")
    true_false = left.only_true_false and right.only_true_false
    span = _span(left, right, metric, any_failed=any(side.failed.any() for side in sides))
    of_shares = true_false or (metric.name == "accuracy" and span[0] >= 0 and span[1] <= 1)
    least, most = (0.0, 1.0) if of_shares else span
    singles = true_false and all(side.binary for side in sides) and rows.clusters is None
    limit = most - least if most > least else numpy.inf
    estimate = _estimate(before[known], after[known], _of(rows.clusters, known), singles, limit)
    missing = int(sum(side.missing.sum() for side in sides))
    worst = None
    if missing and of_shares and sides[0].filled is not None and sides[1].filled is not None:
        best_before, worst_after = (most, least) if sign > 0 else (least, most)
        filled = sides[0].filled(best_before), sides[1].filled(worst_after)
        worst = _estimate(*filled, rows.clusters, singles, limit)
    gains = sign * (after - before)
    return PairedMetric(
        score=left.name,
        metric=metric.name,
        sign=sign,
        n=n,
        baseline=float(before[known].mean()),
        value=float(after[known].mean()),
        estimate=estimate,
        missing=missing,
        worst=worst,
        of_shares=of_shares,
        improved=int((gains[known] > 0).sum()),
        worsened=int((gains[known] < 0).sum()),
        changed=tuple(_changed(rows, sides, gains, changed_rows)),
    )


def _span(left: ScoreArray, right: ScoreArray, metric: NamedMetric, *, any_failed: bool) -> tuple[float, float]:
    """The least and the greatest value of a score on both sides; a failed row counts as 0."""
    found = [score.numbers[numpy.isfinite(score.numbers)] for score in (left, right)]
    ends = [float(end) for part in found if len(part) for end in (part.min(), part.max())]
    if any_failed and metric.calculation.failed_as_false:
        ends.append(0.0)
    return (min(ends), max(ends)) if ends else (0.0, 0.0)


def _of(clusters: Places | None, known: Flags) -> Places | None:
    return None if clusters is None else clusters[known]


def _estimate(before: Numbers, after: Numbers, clusters: Places | None, singles: bool, limit: float) -> Estimate:
    differences = after - before
    if singles:
        return true_false_estimate(int((differences > 0).sum()), int((differences < 0).sum()), len(differences))
    # (0.3 - 0.1) - 0.2 is not quite 0, and a row that has not changed must not count as changed.
    differences[numpy.abs(differences) < 1e-12 * numpy.maximum(numpy.abs(before), numpy.abs(after))] = 0.0
    if clusters is None:
        return mean_estimate(differences, numpy.ones(len(differences)), limit)
    _, numbers = numpy.unique(clusters, return_inverse=True)
    sums = numpy.bincount(numbers, differences).astype(numpy.float64)
    # The sum of the differences of a cluster may be a rounding error away from 0 as well.
    sums[numpy.abs(sums) < 1e-12 * numpy.bincount(numbers, numpy.abs(differences))] = 0.0
    return mean_estimate(sums, numpy.bincount(numbers).astype(numpy.float64), limit)


def _changed(rows: PairedRows, sides: Sequence[RowValues], gains: Numbers, count: int) -> Iterator[Change]:
    """The rows that lost most and those that gained most, each `count`; the first ones of the dataset if equal."""
    before, after = (side.values for side in sides)
    for direction in (1.0, -1.0):
        order = numpy.argsort(direction * gains, kind="stable")[:count]
        for place in order[direction * gains[order] < 0]:
            left, right = int(rows.pairs.left[place]), int(rows.pairs.right[place])
            yield (
                int(rows.baseline.indexes[left]),
                int(rows.other.indexes[right]),
                float(before[place]),
                float(after[place]),
                (bool(rows.baseline.failed[left]), bool(rows.other.failed[right])),
            )


def _any_metric(
    rows: PairedRows, left: ScoreArray, right: ScoreArray, metric: NamedMetric, sign: int
) -> PairedMetric | NoTest:
    calculation = metric.calculation
    sides = ((rows.baseline, left, rows.pairs.left), (rows.other, right, rows.pairs.right))
    try:
        by_row = [_reduced_lists(side, score, calculation) for side, score, _ in sides]
    except (TypeError, ValueError, DotEvalError) as error:
        return NoTest(left.name, metric.name, 0, f"the samples of a row cannot be reduced: {error}")
    pairs: list[_PairedValues] = []
    # The rows that both sides have come first.
    for place in range(rows.pairs.both):
        before, after = by_row[0][rows.pairs.left[place]], by_row[1][rows.pairs.right[place]]
        if before and after:
            pairs.append((before, after, place))
    if not pairs:
        return NoTest(left.name, metric.name, 0, "no row has a value on both sides")
    missing = sum(side.samples * len(rows.pairs.left) - int((score.rows >= 0).sum()) for side, score, _ in sides)
    places = [place for _, _, place in pairs]
    units = [
        _units(values, places, calculation.per_row, rows.clusters)
        for values in ([before for before, _, _ in pairs], [after for _, after, _ in pairs])
    ]
    # Metrics are user code: one that raises must not hide the others.
    try:
        estimate = metric_estimate(units[0], units[1], calculation.value)
        values = [float(calculation.value([value for unit in side for value in unit])) for side in units]
    except Exception as error:  # noqa: BLE001
        return NoTest(left.name, metric.name, len(pairs), f"{metric.name} raised {type(error).__name__}")
    estimate = replace(estimate, difference=values[1] - values[0])
    return PairedMetric(
        score=left.name,
        metric=metric.name,
        sign=sign,
        n=len(pairs),
        baseline=values[0],
        value=values[1],
        estimate=estimate,
        missing=missing,
        worst=None,
        of_shares=False,
    )


def _lists(side: EvaluationArrays, score: ScoreArray, calculation: Calculation) -> list[list[Any]]:
    """The values of each row of a side, with False for each failed sample if the metric counts it so."""
    order = numpy.argsort(score.rows, kind="stable")
    values = score.values(order)
    ends = numpy.searchsorted(score.rows[order], numpy.arange(len(side)), side="right").tolist()
    found = [values[first:end] for first, end in zip([0, *ends[:-1]], ends, strict=True)]
    if calculation.failed_as_false:
        for row in numpy.flatnonzero(side.failed).tolist():
            found[row] += [False] * int(side.failed[row])
    return found


def _reduced_lists(side: EvaluationArrays, score: ScoreArray, calculation: Calculation) -> list[list[Any]]:
    """`_lists` with the samples of a row reduced to one value, unless the metric wants all of them."""
    found = _lists(side, score, calculation)
    if calculation.per_row or side.samples == 1 or side.reducer is None:
        return found
    reduce = reducer(side.reducer)
    return [[reduce(row)] if row else [] for row in found]


def _units(
    values: Sequence[list[Any]], places: Sequence[int], per_row: bool, clusters: Places | None
) -> list[list[Any]]:
    """The values of each row, or of each cluster of rows. Metrics over samples get one list for each row."""
    of_rows = [[row] for row in values] if per_row else values
    if clusters is None:
        return list(of_rows)
    found: dict[int, list[Any]] = {}
    for row, place in zip(of_rows, places, strict=True):
        found.setdefault(int(clusters[place]), []).extend(row)
    return list(found.values())
