"""Summarizes an evaluation: the metrics of its scores, with intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from doteval.core.experiments import Counts
from doteval.errors import DotEvalError
from doteval.metrics import Interval, NamedMetric, mean, resolve
from doteval.metrics.intervals import as_number, resampled_interval

ErrorsAs = Literal["false", "excluded"]

_PLAIN = frozenset({bool, int, float, str, tuple, list, type(None)})


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """All values of one score in the rows that are done. `metrics` are the names of its metrics.

    If rows have several samples, `rows` holds the row of each value and `failed_rows` the row of each failed
    sample. Metrics over samples (`pass_at_k`) need them, and intervals are then computed over rows. With one
    sample a row, `rows` is None.
    """

    name: str
    metrics: tuple[str, ...]
    values: list[Any]
    rows: Sequence[Hashable] | None = field(default=None, repr=False)
    failed_rows: Sequence[Hashable] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One metric of one score.

    `n` is the number of scores that `value` is computed from. `interval` is the 95% interval, None where none
    is defined. `without_failed` is the value over only the rows that are done. If there is no value, `value` is
    None and `note` says why.
    """

    name: str
    value: float | None
    n: int
    interval: Interval | None = None
    without_failed: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """The metrics of one score. `failed` is the number of failed rows that count as False; 0 if they are left out."""

    name: str
    metrics: tuple[MetricValue, ...]
    failed: int

    def __getitem__(self, metric: str) -> float | None:
        """The value of a metric. Raises KeyError if the score does not have the metric."""
        for value in self.metrics:
            if value.name == metric:
                return value.value
        raise KeyError(metric)


@dataclass(frozen=True, slots=True)
class Summary:
    """The scores of an evaluation with their metrics. `summary["exact_match"]["accuracy"]` is a number."""

    counts: Counts
    scores: tuple[ScoreSummary, ...]
    errors_as: ErrorsAs = "false"

    def __getitem__(self, score: str) -> ScoreSummary:
        """The summary of a score. Raises KeyError if there is no such score."""
        for summary in self.scores:
            if summary.name == score:
                return summary
        raise KeyError(score)

    def __iter__(self) -> Iterator[ScoreSummary]:
        return iter(self.scores)

    def to_dict(self) -> dict[str, dict[str, float | None]]:
        """The values by score and metric, as plain dicts."""
        return {score.name: {metric.name: metric.value for metric in score.metrics} for score in self.scores}


def summarize(columns: Sequence[ScoreColumn], counts: Counts, *, errors_as: ErrorsAs = "false") -> Summary:
    """Compute every metric of every score, with its 95% interval where one is defined.

    A failed row counts as False for each score, or is left out with `errors_as="excluded"`; skipped and pending
    rows never count.

    Intervals: true/false values have Wilson's interval. The mean of numbers has a seeded bootstrap interval up to
    2,000 numbers, and the normal approximation beyond. Other metrics are resampled up to 500 scores, and have no
    interval beyond. If rows have several samples, the interval of a mean is that of the rows' means, since the
    samples of a row are not independent (Miller, Adding Error Bars to Evals, 2024, arXiv:2411.00640, section 2.2);
    other metrics of single samples then have none.

    A metric that is not installed, or that raises, does not raise here: its `note` says what happened.
    """
    return Summary(counts, tuple(_score(column, counts, errors_as) for column in columns), errors_as)


def _score(column: ScoreColumn, counts: Counts, errors_as: ErrorsAs) -> ScoreSummary:
    failed = counts.failed if errors_as == "false" else 0
    done = _Scores(_plain(column.values), column.rows)
    every = done.with_failed(failed, column.failed_rows) if failed else done
    return ScoreSummary(column.name, tuple(_metric(name, done, every) for name in column.metrics), failed)


class _Scores:
    """The values of a score, with their rows."""

    def __init__(self, values: list[Any], rows: Sequence[Hashable] | None) -> None:
        self.values = values
        self.rows = rows
        self._by_row: list[list[Any]] | None = None

    def with_failed(self, failed: int, failed_rows: Sequence[Hashable]) -> _Scores:
        values = self.values + [False] * failed
        if self.rows is None:
            return _Scores(values, None)
        # Where the store cannot say to which rows the failed samples belong, each is counted as a row of its own.
        known = list(failed_rows[:failed])
        unknown: list[Hashable] = [("failed", index) for index in range(failed - len(known))]
        return _Scores(values, [*self.rows, *known, *unknown])

    @property
    def by_row(self) -> list[list[Any]]:
        if self._by_row is None:
            if self.rows is None:
                self._by_row = [[value] for value in self.values]
            else:
                grouped: dict[Hashable, list[Any]] = {}
                for row, value in zip(self.rows, self.values, strict=True):
                    grouped.setdefault(row, []).append(value)
                self._by_row = list(grouped.values())
        return self._by_row

    @property
    def repeated(self) -> bool:
        return self.rows is not None and len(self.by_row) < len(self.values)


def _metric(name: str, done: _Scores, every: _Scores) -> MetricValue:
    n = len(every.values)
    try:
        metric = resolve(name)
    except DotEvalError as error:
        return MetricValue(name, None, n, note=error.message)
    if n == 0:
        return MetricValue(name, None, n, note="no scores")
    # Metrics are user code: one that raises must not hide the other metrics or the rows.
    try:
        value = _value(metric, every)
    except Exception as error:  # noqa: BLE001
        return MetricValue(name, None, n, note=_failure(metric, error))
    try:
        interval = _interval(metric, every)
    except Exception as error:  # noqa: BLE001
        return MetricValue(name, value, n, note=f"no interval: {_failure(metric, error)}")
    without_failed: float | None = value
    if every is not done:
        try:
            without_failed = _value(metric, done) if done.values else None
        except Exception as error:  # noqa: BLE001
            return MetricValue(name, value, n, interval, None, f"without failed rows: {_failure(metric, error)}")
    return MetricValue(name, value, n, interval, without_failed)


def _value(metric: NamedMetric, scores: _Scores) -> float:
    calculation = metric.calculation
    found = calculation.value(scores.by_row if calculation.per_row else scores.values)
    if found is None or isinstance(found, Interval):
        # ci95 returns the interval itself; its value is the mean, which is inside of the interval.
        found = mean()(scores.values)
    return float(found)


def _interval(metric: NamedMetric, scores: _Scores) -> Interval | None:
    calculation = metric.calculation
    if calculation.per_row:
        return calculation.interval(scores.by_row) if calculation.interval else None
    if scores.repeated:
        if not (calculation.average and calculation.interval):
            return None
        return calculation.interval([math.fsum(map(as_number, row)) / len(row) for row in scores.by_row])
    if calculation.interval:
        return calculation.interval(scores.values)
    return resampled_interval(scores.values, calculation.value)


def _failure(metric: NamedMetric, error: Exception) -> str:
    # Messages of other metrics may contain row contents, which must not be shown.
    own = metric.calculation.value.__module__.startswith("doteval.metrics.")
    return f"{metric.name} {error}" if own else f"{metric.name} raised {type(error).__name__}"


def _plain(values: list[Any]) -> list[Any]:
    """The values with numpy scalars converted to Python numbers; the same list if there are none."""
    if set(map(type, values)) <= _PLAIN:
        return values
    return [value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value for value in values]
