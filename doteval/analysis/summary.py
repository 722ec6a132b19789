"""Summarizes an evaluation: the metrics of its scores, with intervals."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from doteval.core.experiments import Counts, Evaluation
from doteval.core.wording import counted
from doteval.errors import DotEvalError
from doteval.metrics import Calculation, Interval, NamedMetric, mean, resolve
from doteval.metrics.intervals import FEW_FOR_BOOTSTRAP, as_number, resampled_interval
from doteval.metrics.reducers import Reducer
from doteval.metrics.reducers import reducer as reducer_named

ErrorsAs = Literal["false", "excluded"]

_PLAIN = frozenset({bool, int, float, str, tuple, list, type(None)})
# Types whose values are finite, so that they need not be looked at one by one.
_FINITE = frozenset({bool, int, str, type(None)})

# A share of failed rows beyond which figures that count them say little about the rest.
FAILED_SHARE_WARNED = 0.05

# Rows that a note names, at most.
_ROWS_NAMED = 5


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """All values of one score in the rows that are done. `metrics` are the names of its metrics.

    If rows have several samples, `rows` holds the row of each value and `failed_rows` the row of each failed
    sample. Metrics over samples (`pass_at_k`) need them, and intervals are then computed over rows. With one
    sample a row, `rows` is None, and `not_finite_rows` holds the rows whose value is NaN or infinite, for notes.
    """

    name: str
    metrics: tuple[str, ...]
    values: list[Any]
    rows: Sequence[Hashable] | None = field(default=None, repr=False)
    failed_rows: Sequence[Hashable] = field(default=(), repr=False)
    not_finite_rows: Sequence[int] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One metric of one score.

    `value` is a finite number; without one it is None, and `note` says why. `n` is the number of scores that it is
    computed from; `failed` of them are a False that stands for a failed row. `left_out` is the number of done and
    failed rows that are not among them: done rows without this score, and failed rows where they do not count.
    `interval` is the 95% interval, None where none is defined. `without_failed` is the value over only the rows that
    are done. `note` also says what is left out, and which scores are NaN. `known` is False if no metric of this name
    is loaded.
    """

    name: str
    value: float | None
    n: int
    interval: Interval | None = None
    without_failed: float | None = None
    note: str | None = None
    failed: int = 0
    left_out: int = 0
    known: bool = True


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """The metrics of one score. `failed` is the number of failed rows that count as False; 0 if they are left out.

    A metric may leave failed rows out all the same; see its own `failed`.
    """

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

    @property
    def unknown_metrics(self) -> list[str]:
        """The metrics that are not loaded here, each once."""
        return list(dict.fromkeys(metric.name for score in self for metric in score.metrics if not metric.known))

    @property
    def notes(self) -> list[str]:
        """The notes on its values, each with the score and the metrics that it is about."""
        about: dict[tuple[str, str], list[str]] = {}
        for score in self.scores:
            for metric in score.metrics:
                if metric.note is not None:
                    about.setdefault((score.name, metric.note), []).append(metric.name)
        return [f"{score} {', '.join(metrics)}: {note}" for (score, note), metrics in about.items()]

    @property
    def warnings(self) -> list[str]:
        """The warnings that every reader of the figures gets, such as that more than 5% of the rows failed.

        >>> Summary(Counts(100, done=90, failed=10), ()).warnings
        ['10 of 100 rows failed (10.0%): the figures count them as False']
        """
        failed, ran = self.counts.failed, self.counts.done + self.counts.failed
        if failed <= FAILED_SHARE_WARNED * ran:
            return []
        treated = "count them as False" if self.errors_as == "false" else "leave them out"
        return [f"{failed:,} of {counted(ran, 'row')} failed ({failed / ran:.1%}): the figures {treated}"]


def summarize(
    columns: Sequence[ScoreColumn],
    counts: Counts,
    *,
    errors_as: ErrorsAs = "false",
    files: Collection[str] = (),
    reducer: str | None = None,
) -> Summary:
    """Compute every metric of every score, with its 95% interval where one is defined.

    A failed row counts as False for each score, or is left out with `errors_as="excluded"`. Metrics whose
    `Calculation.failed_as_false` is False, such as `f1`, always leave it out. Skipped and pending rows never count.

    Intervals: true/false values have Wilson's interval. The mean of numbers has a seeded studentized bootstrap interval
    up to 2,000 numbers, and Student's beyond. Other metrics are resampled up to 500 scores, and have no
    interval beyond. If rows have several samples, the interval of a mean is that of the rows' means, since the
    samples of a row are not independent (Miller, Adding Error Bars to Evals, 2024, arXiv:2411.00640, section 2.2);
    other metrics of single samples then have none.

    A metric that is not installed, or that raises, does not raise here: its `note` says what happened.

    files: the paths of the files that the evaluation consists of, to tell metrics of one name apart.
    reducer: the name of what reduces the samples of a row to one score, see `doteval.metrics.reducers`. `n` is then the
        number of rows, and `failed` and `left_out` count samples. Metrics over samples, such as `pass_at_k`, get all.
    """
    of_row = None if reducer is None else _Reduction(reducer, reducer_named(reducer))
    return Summary(counts, tuple(_score(column, counts, errors_as, files, of_row) for column in columns), errors_as)


def summarize_evaluation(
    evaluation: Evaluation, columns: Sequence[ScoreColumn], errors_as: ErrorsAs = "false"
) -> Summary:
    """`summarize` the scores of an evaluation as it is configured."""
    return summarize(
        columns,
        evaluation.counts,
        errors_as=errors_as,
        files=evaluation.spec.fingerprint,
        reducer=evaluation.config.reducer,
    )


@dataclass(frozen=True, slots=True)
class _Reduction:
    """The function that reduces the samples of a row, and its name."""

    name: str
    function: Reducer


def _score(
    column: ScoreColumn, counts: Counts, errors_as: ErrorsAs, files: Collection[str], of_row: _Reduction | None
) -> ScoreSummary:
    done = _Scores(_plain(column.values), column.rows)
    every = done.with_failed(counts.failed, column.failed_rows) if counts.failed and errors_as == "false" else done
    lacking = max(0, counts.done - len(done.values))
    remarks = _Remarks(
        not_finite=_not_finite(done, column.not_finite_rows),
        lacking=f"{counted(lacking, 'row')} without this score left out" if lacking else None,
    )
    metrics = []
    for name in column.metrics:
        found = _metric(name, done, every, remarks, files, of_row)
        left_out = lacking + counts.failed - found.failed
        metrics.append(replace(found, left_out=left_out))
    return ScoreSummary(column.name, tuple(metrics), len(every.values) - len(done.values))


@dataclass(frozen=True, slots=True)
class _Remarks:
    """Remarks on the values of a score, which the notes of all its metrics repeat."""

    not_finite: str | None
    lacking: str | None


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

    def reduced(self, function: Reducer) -> _Scores:
        """One score a row."""
        return _Scores([function(samples) for samples in self.by_row], None)

    @property
    def repeated(self) -> bool:
        return self.rows is not None and len(self.by_row) < len(self.values)


def _metric(
    name: str,
    done: _Scores,
    every: _Scores,
    remarks: _Remarks,
    files: Collection[str],
    of_row: _Reduction | None,
) -> MetricValue:
    try:
        metric = resolve(name, files)
    except DotEvalError as error:
        return MetricValue(name, None, len(every.values), note=error.message, known=False)
    all_failed = len(every.values) - len(done.values)
    given = every if metric.calculation.failed_as_false else done
    failed = len(given.values) - len(done.values)
    notes = [remarks.not_finite]
    value = interval = without_failed = None
    if of_row is not None and not metric.calculation.per_row:
        try:
            given, done = given.reduced(of_row.function), done.reduced(of_row.function)
        except Exception as error:  # noqa: BLE001 - scores are values of users; the note says why there is no figure
            notes.append(f"{of_row.name} of the samples: {error}")
            given, done = _Scores([], None), _Scores([], None)
        else:
            notes.append(f"{of_row.name} of the samples of each row")
    n = len(given.values)
    if n == 0:
        notes.append("no scores")
    else:
        value, why_not = _value(metric, given, says_why=remarks.not_finite is None)
        notes.append(why_not)
        without_failed = value
        if failed:
            without_failed, why_not = _value(metric, done, says_why=value is not None) if done.values else (None, None)
            notes.append(why_not and f"without failed rows: {why_not}")
        if value is not None:
            interval, why_not = _interval(metric, given)
            notes.append(why_not and f"no interval: {why_not}")
            notes.append(_limitation(interval, n))
    notes.append(remarks.lacking)
    if all_failed and not failed:
        notes.append(f"{counted(all_failed, 'failed row')} left out")
    note = "; ".join(text for text in notes if text)
    return MetricValue(name, value, n, interval, without_failed, note or None, failed)


def _limitation(interval: Interval | None, n: int) -> str | None:
    """The note on a bootstrap interval of few scores, which is too narrow; None for others."""
    if interval is None or interval.method != "bootstrap" or n >= FEW_FOR_BOOTSTRAP:
        return None
    return f"with {counted(n, 'score')} the bootstrap interval is too narrow, take it for a hint"


def _value(metric: NamedMetric, scores: _Scores, *, says_why: bool) -> tuple[float | None, str | None]:
    """The value of a metric if it is a finite number, and why it is not one.

    says_why: whether to say so if it is NaN, which other notes may explain.
    """
    calculation = metric.calculation
    # Metrics are user code: one that raises must not hide the other metrics or the rows.
    try:
        found = calculation.value(scores.by_row if calculation.per_row else scores.values)
        if found is None or isinstance(found, Interval):
            # ci95 returns the interval itself; its value is the mean, which is inside of the interval.
            found = mean()(scores.values)
        number = float(found)
    except Exception as error:  # noqa: BLE001
        return None, _failure(metric, error)
    if math.isfinite(number):
        return number, None
    what = "NaN" if math.isnan(number) else "infinite"
    return None, f"the value is {what}" if says_why else None


def _interval(metric: NamedMetric, scores: _Scores) -> tuple[Interval | None, str | None]:
    """The interval of a metric, None where none is defined, and why it cannot be computed."""
    try:
        found = _calculated_interval(metric.calculation, scores)
    except Exception as error:  # noqa: BLE001
        return None, _failure(metric, error)
    return (found if found is not None and all(map(math.isfinite, found)) else None), None


def _calculated_interval(calculation: Calculation, scores: _Scores) -> Interval | None:
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


def _not_finite(scores: _Scores, rows: Sequence[Hashable]) -> str | None:
    """How many scores are NaN or infinite, and in which rows; None if there are none.

    rows: their rows, for scores that do not know the row of each value.
    """
    values = scores.values
    places = not_finite_places(values)
    if not places:
        return None
    are_nan = [any(map(math.isnan, _floats(values[place]))) for place in places]
    what = "NaN" if all(are_nan) else "NaN or infinite" if any(are_nan) else "infinite"
    verb = "is" if len(places) == 1 else "are"
    if scores.rows is not None:
        rows = list(dict.fromkeys(scores.rows[place] for place in places))
    named = ", ".join(str(row) for row in rows[:_ROWS_NAMED])
    more = f" and {len(rows) - _ROWS_NAMED:,} more" if len(rows) > _ROWS_NAMED else ""
    where = f" (row{'' if len(rows) == 1 else 's'} {named}{more})" if rows else ""
    return f"{len(places):,} of {counted(len(values), 'score')} {verb} {what}{where}"


def not_finite_places(values: list[Any]) -> list[int]:
    """The places of scores that are NaN or infinite, or pairs with such a part.

    >>> not_finite_places([True, 0.5, float("nan"), ("a", float("inf"))])
    [2, 3]
    """
    if set(map(type, values)) <= _FINITE:
        return []
    return [place for place, value in enumerate(_plain(values)) if not all(map(math.isfinite, _floats(value)))]


def _floats(value: Any) -> Sequence[float]:
    """The floats of a number, or of a pair (predicted, expected)."""
    if type(value) is float:
        return (value,)
    return [each for each in value if type(each) is float] if isinstance(value, (tuple, list)) else ()


def _plain(values: list[Any]) -> list[Any]:
    """The values with numpy scalars converted to Python numbers; the same list if there are none."""
    if set(map(type, values)) <= _PLAIN:
        return values
    return [value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value for value in values]
