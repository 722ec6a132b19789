"""What the charts of an evaluation show: computed in the background, drawn and written as tables by two pages."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from doteval.analysis.distributions import Histogram, LogCounts, Timeline, TimelineCounts
from doteval.analysis.figures import figure, money
from doteval.analysis.history import series_of
from doteval.core.experiments import Evaluation
from doteval.core.histogram import NO_LATENCY
from doteval.core.wording import counted, duration
from doteval.store import Store
from doteval.store.history import history_points

# Experiments of a history, its metrics, and models with a cost, at most.
_EXPERIMENTS = 40
_METRICS = 4
_MODELS = 20


@dataclass(frozen=True, slots=True)
class FigureSeries:
    """The values of one kind, one for each label; None where there is none.

    intervals: the lower and the upper bound of each value, if they have any.
    """

    name: str
    values: tuple[float | None, ...]
    texts: tuple[str, ...]
    intervals: tuple[tuple[float, float] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class ShownFigure:
    """A chart: its labels along the horizontal axis, with the values above each.

    is_stacked: whether bars of several series stand on one another.
    ticks: shorter labels for the axis, the labels themselves without any.
    """

    title: str
    caption: str
    axis: str
    labels: tuple[str, ...]
    series: tuple[FigureSeries, ...]
    is_stacked: bool = False
    ticks: tuple[str, ...] = ()

    @property
    def alternative(self) -> str:
        """The chart in a sentence, for those who do not see it."""
        return f"{self.title}: {self.caption}. The table below has its values."

    @property
    def version(self) -> str:
        """Changes with what the chart shows, so that the browser asks for another image."""
        return f"{zlib.crc32(repr(self).encode(errors='replace')):x}"


def read_figures(store: Store, evaluation: Evaluation) -> tuple[ShownFigure, ...]:
    """Read the figures of an evaluation. It reads all of its results, and keeps some numbers."""
    return tuple(_figures(store, evaluation))


def _figures(store: Store, evaluation: Evaluation) -> Iterator[ShownFigure]:
    seconds, timeline = LogCounts(0.001), TimelineCounts()
    store.distributions.add_times(evaluation.id, seconds, timeline)
    for score in store.distributions.scores(evaluation.id):
        if score.histogram is not None:
            yield _histogram(score.name, counted(score.n, "value"), score.histogram, lambda value: f"{value:.3g}")
        elif score.values:
            named = [*score.values, *([("others", score.others)] if score.others else [])]
            labels = tuple(name for name, _ in named)
            yield ShownFigure(
                score.name, counted(score.n, "value"), "value", labels, (_counts([count for _, count in named]),)
            )
    models = [
        model.usage
        for group in store.usage.by_evaluation(evaluation.experiment)
        if group.name == evaluation.spec.nodeid
        for model in group.models
    ]
    replies = LogCounts.of_latency(sum((model.latency for model in models), NO_LATENCY))
    yield from _spread("Time of a row", seconds, _seconds)
    yield from _spread("Time of a reply", replies, _seconds)
    yield from _spread("Tokens of a row", store.distributions.tokens(evaluation.id), lambda value: f"{value:,.0f}")
    priced = [(model.name, model.cost) for model in models if model.cost][:_MODELS]
    if priced:
        costs = FigureSeries("cost", tuple(cost for _, cost in priced), tuple(money(cost) for _, cost in priced))
        caption = f"{money(sum(cost for _, cost in priced))} in all"
        yield ShownFigure("Cost by model", caption, "model", tuple(name for name, _ in priced), (costs,))
    course = timeline.timeline()
    if course is not None:
        yield _course(course)
    yield from _history(store, evaluation)


def _counts(counts: Sequence[int], name: str = "rows") -> FigureSeries:
    return FigureSeries(name, tuple(map(float, counts)), tuple(f"{count:,}" for count in counts))


def _histogram(title: str, caption: str, found: Histogram, shown: Callable[[float], str]) -> ShownFigure:
    labels = tuple(f"{shown(low)} to {shown(high)}" for low, high in itertools.pairwise(found.edges))
    return ShownFigure(
        title, caption, "from, to", labels, (_counts(found.counts),), ticks=tuple(map(shown, found.edges[:-1]))
    )


def _spread(title: str, counts: LogCounts, shown: Callable[[float], str]) -> Iterator[ShownFigure]:
    histogram, half, most = counts.histogram, counts.quantile(0.5), counts.quantile(0.95)
    if histogram is not None and half is not None and most is not None:
        yield _histogram(title, f"median {shown(half)}, 95% within {shown(most)}", histogram, shown)


def _seconds(value: float) -> str:
    """A time along an axis, whose steps may be shorter than a hundredth of a second.

    >>> _seconds(0.0123), _seconds(75)
    ('0.012 s', '1 min 15 s')
    """
    return f"{value:.2g} s" if value < 1 else duration(value)


def _course(found: Timeline) -> ShownFigure:
    labels = tuple(
        f"{datetime.fromtimestamp(found.start + number * found.width, UTC):%Y-%m-%d %H:%M:%S} UTC"
        for number in range(len(found.done))
    )
    series = [_counts(found.done, "done")]
    if any(found.failed):
        series.append(_counts(found.failed, "failed"))
    caption = f"rows that ended, {duration(found.width)} a bar, over {duration(found.seconds)}"
    ticks = tuple(duration(number * found.width) for number in range(len(found.done)))
    return ShownFigure("Rows over time", caption, "from", labels, tuple(series), is_stacked=True, ticks=ticks)


def _history(store: Store, evaluation: Evaluation) -> Iterator[ShownFigure]:
    """The metrics of the evaluation of this name in this experiment and those before it."""
    own = evaluation.experiment
    before = [each for each in store.experiments.overviews() if each.experiment.created_at <= own.created_at]
    shown = 0
    points = history_points(store, before[:_EXPERIMENTS], {evaluation.spec.nodeid})
    for (_, score, metric), steps in series_of(points).items():
        if len(steps) < 2 or steps[-1].point.experiment != own.name or shown == _METRICS:
            continue
        shown += 1
        values = [step.point.metric for step in steps]
        course = FigureSeries(
            metric,
            tuple(each.value for each in values),
            tuple(figure(each.value) for each in values),
            tuple(None if each.interval is None else (each.interval.low, each.interval.high) for each in values),
        )
        labels = tuple(step.point.experiment + (f" {step.point.commit}" if step.point.commit else "") for step in steps)
        caption = f"{counted(len(steps), 'experiment')}, the oldest first, with 95% intervals"
        title, ticks = f"History of {score}.{metric}", tuple(step.point.experiment for step in steps)
        yield ShownFigure(title, caption, "experiment, commit", labels, (course,), ticks=ticks)
