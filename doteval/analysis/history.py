"""The course of a metric over experiments: what changed from one to the next, and whether more than by chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from doteval.analysis.figures import figure
from doteval.analysis.summary import MetricValue
from doteval.core.experiments import EvaluationStatus

_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """A metric of one evaluation in one experiment.

    score: the name of the score.
    rows: a hash of the rows' keys in order, None if it is not known.
    code: hashes of the evaluation's files by path.
    commit, branch: of git, where the experiment began; None if they are not known.
    """

    experiment: str
    evaluation: str
    score: str
    metric: MetricValue
    started_at: datetime
    status: EvaluationStatus
    rows: str | None
    code: Mapping[str, str]
    commit: str | None = None
    branch: str | None = None
    tags: tuple[str, ...] = ()
    is_baseline: bool = False

    @property
    def series(self) -> tuple[str, str, str]:
        """The series that this point belongs to: the names of the evaluation, the score and the metric."""
        return self.evaluation, self.score, self.metric.name


class Change(NamedTuple):
    """The difference between two values, new minus old, with its 95% interval."""

    difference: float
    low: float
    high: float

    @property
    def is_seen(self) -> bool:
        """Whether it is more than what chance explains: the interval does not hold 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """A point with what changed since the one before that it can be compared with.

    compared_with: the experiment that `change` is against; None without one.
    difference: new value minus old.
    change: the same with its interval; None where one of the two values has no interval.
    notes: why it cannot be compared with the point before it, or what else differs.
    baseline_difference: value minus that of the baseline; None for the baseline, and where there is none on these rows.
    baseline_change: the same with its interval.
    """

    point: HistoryPoint
    compared_with: str | None = None
    difference: float | None = None
    change: Change | None = None
    notes: tuple[str, ...] = ()
    baseline_difference: float | None = None
    baseline_change: Change | None = None

    @property
    def is_seen(self) -> bool:
        """Whether the value changed by more than chance explains."""
        return self.change is not None and self.change.is_seen


def series_of(points: Iterable[HistoryPoint]) -> dict[tuple[str, str, str], list[HistoryStep]]:
    """Sort points into series by evaluation, score and metric, each from the oldest to the newest.

    A point is compared with the newest one before it that ran on the same rows and has a value.
    """
    series: dict[tuple[str, str, str], list[HistoryPoint]] = {}
    for point in sorted(points, key=lambda each: each.started_at):
        series.setdefault(point.series, []).append(point)
    return {name: _steps(found) for name, found in series.items()}


def _steps(points: Sequence[HistoryPoint]) -> list[HistoryStep]:
    steps = []
    baselines = [point for point in points if point.is_baseline]
    for place, point in enumerate(points):
        notes = []
        if point.rows is None:
            notes.append("rows not known")
        elif place and point.rows != points[place - 1].rows:
            notes.append("other rows")
        if place and point.code != points[place - 1].code:
            notes.append("other code")
        if point.status is not EvaluationStatus.COMPLETED:
            notes.append(point.status.value)
        base = _base(points[:place], point)
        baseline = None if point.is_baseline else _base(baselines, point)
        known = point.metric.value is not None
        compared_with = base.experiment if base is not None and known else None
        difference, seen = _difference(base, point)
        to_baseline, seen_to_baseline = _difference(baseline, point)
        steps.append(HistoryStep(point, compared_with, difference, seen, tuple(notes), to_baseline, seen_to_baseline))
    return steps


def _difference(base: HistoryPoint | None, point: HistoryPoint) -> tuple[float | None, Change | None]:
    """The difference of two values, and the same with its interval."""
    if base is None or base.metric.value is None or point.metric.value is None:
        return None, None
    return point.metric.value - base.metric.value, change(base.metric, point.metric)


def _base(before: Sequence[HistoryPoint], point: HistoryPoint) -> HistoryPoint | None:
    if point.rows is None:
        return None
    alike = (each for each in reversed(before) if each.rows == point.rows and each.metric.value is not None)
    return next(alike, None)


def change(old: MetricValue, new: MetricValue) -> Change | None:
    """The change of a value with the interval that follows from the intervals of both; None if one has none.

    It treats the two as independent, which is cautious for runs on the same rows: `doteval compare` pairs them. The
    interval is that of Zou and Donner, Construction of confidence limits about effect measures, Statistics in Medicine
    27, 2008, equation 2 (for shares that of Newcombe 1998, method 10).

    >>> from doteval.metrics.intervals import wilson
    >>> old, new = (MetricValue("accuracy", right / 100, 100, wilson(right, 100)) for right in (90, 70))
    >>> found = change(old, new)
    >>> f"{found.difference:.2f} {found.low:.2f} {found.high:.2f}"
    '-0.20 -0.31 -0.09'
    """
    if old.value is None or new.value is None or old.interval is None or new.interval is None:
        return None
    difference = new.value - old.value
    low = difference - math.hypot(new.value - new.interval.low, old.interval.high - old.value)
    high = difference + math.hypot(new.interval.high - new.value, old.value - old.interval.low)
    return Change(difference, low, high)


def change_sentence(step: HistoryStep) -> str:
    """Say what changed at a step whose change is seen, with its interval and the commit."""
    assert step.change is not None
    ends = sorted((abs(step.change.low), abs(step.change.high)))
    what = "fell" if step.change.difference < 0 else "rose"
    where = f" (commit {step.point.commit})" if step.point.commit else ""
    return (
        f"{step.point.metric.name} {what} by {figure(abs(step.change.difference))} "
        f"({figure(ends[0])} to {figure(ends[1])}) from {step.compared_with} to "
        f"{step.point.experiment}{where}"
    )


def sparkline(values: Sequence[float | None]) -> str:
    """The course of values as blocks from the lowest to the highest; a dot for None.

    >>> sparkline([0.5, None, 0.75, 1.0])
    '▁·▅█'
    """
    known = [value for value in values if value is not None]
    if not known:
        return "·" * len(values)
    low, spread = min(known), max(known) - min(known)
    top = len(_BLOCKS) - 1
    return "".join(
        "·" if value is None else _BLOCKS[round((value - low) / spread * top) if spread else top // 2]
        for value in values
    )
