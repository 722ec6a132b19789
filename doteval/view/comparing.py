"""Compares experiments for a page, as `doteval compare` does, and keeps what the page shows of it."""

from __future__ import annotations

import base64
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from doteval.analysis.compare import Comparison, Verdict
from doteval.core.experiments import EvaluationStatus
from doteval.core.wording import counted
from doteval.report.contents import Against
from doteval.store import ExperimentOverview, Store
from doteval.store.comparisons import (
    ComparedPair,
    ComparisonOptions,
    compare_pairs,
    compared,
    match_evaluations,
    select_evaluations,
)
from doteval.view.drawing import draw
from doteval.view.figures import FigureSeries, ShownFigure
from doteval.view.visit import Visit, progress_key

# Pairs of evaluations that are kept, and rows that are kept of each of their metrics: so many that became worse, and as
# many that improved. Of many pairs there are fewer.
_PAIRS = 200
_ROWS = 20
_ROWS_OF_MANY = 3
# Metrics in the chart, and those whose names have room below it.
_CHARTED = 30
_NAMED = 4

_RANKS = {Verdict.WORSE: 0, Verdict.UNDECIDED: 1, Verdict.BETTER: 2, Verdict.NO_DIFFERENCE: 3}


@dataclass(frozen=True, slots=True)
class ComparisonTarget:
    """An experiment, or some of its evaluations, as the URL names it.

    text: ``NAME`` or ``NAME::EVALUATION``.
    state: changes with the results.
    running: whether it does so all the time.
    """

    text: str
    experiment: str
    state: Hashable
    running: bool = False


@dataclass(frozen=True, slots=True)
class KeptComparison:
    """A comparison of one experiment or several with a baseline.

    pairs: the evaluations that belong together, those that are worse first; `left_out` more are not kept.
    against: for each of the other experiments, what `doteval.report.page` makes sentences of.
    chart: how many rows became better and worse, None if no row did; `images` has the same, drawn for light and for
        dark pages.
    """

    comparison: Comparison
    pairs: tuple[ComparedPair, ...]
    left_out: int
    against: tuple[Against, ...]
    only_others: tuple[str, ...]
    chart: ShownFigure | None
    images: tuple[bytes, ...]

    @property
    def image_urls(self) -> list[str]:
        """The images as URLs that hold them: they were drawn with the comparison, and are needed with it only."""
        return [f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}" for image in self.images]


def target_of(visit: Visit, text: str) -> ComparisonTarget:
    """The experiment that a text of the URL names. Raises NotFoundError: there is none."""
    overviews = visit.calculations.recent("overviews", visit.store.experiments.overviews)
    known = {each.experiment.name: each for each in overviews}
    parts = text.split("::")
    names = ("::".join(parts[:count]) for count in range(len(parts), 0, -1))
    name = next((each for each in names if each in known), None)
    if name is None:
        experiment = visit.store.experiments.find(visit.store.baseline.named(parts[0]))
        return ComparisonTarget(text, experiment.name, experiment.id)
    running = known[name].status is EvaluationStatus.RUNNING
    return ComparisonTarget(text, name, _state(known[name]), running)


def _state(overview: ExperimentOverview) -> Hashable:
    running = overview.status is EvaluationStatus.RUNNING
    state = progress_key(overview.counts, running=running)
    return overview.experiment.id, state, None if running else overview.active_at


def compare_targets(store: Store, targets: Sequence[str]) -> KeptComparison:
    """Compare all others with the first one. Raises the errors of `select_evaluations` and `match_evaluations`."""
    selected = [select_evaluations(store, target) for target in targets]
    matched = match_evaluations(selected[0], selected[1:])
    rows = _ROWS if len(matched.pairs) <= _PAIRS else _ROWS_OF_MANY
    comparison = compare_pairs(store, matched, ComparisonOptions(changed_rows=rows))
    pairs = compared(store, matched, comparison)
    # Evaluations that are few stay in their order.
    if len(pairs) > 8:
        pairs.sort(key=lambda pair: _RANKS[pair.comparison.verdict])
    kept = tuple(pairs[:_PAIRS])
    only_others = tuple(f"{each.experiment.name}: {each.spec.nodeid}" for each in matched.only_others)
    against = []
    for target, selection in zip(targets[1:], selected[1:], strict=True):
        evaluations = {each.id for each in selection.evaluations}
        mine = tuple(pair for pair in kept if pair.pair.other.id in evaluations)
        against.append(Against((targets[0], target), comparison, mine, 0, (), ()))
    chart = flips_figure(kept)
    images = () if chart is None else tuple(draw(chart, dark=dark) for dark in (False, True))
    return KeptComparison(comparison, kept, len(pairs) - len(kept), tuple(against), only_others, chart, images)


def flips_figure(pairs: Sequence[ComparedPair]) -> ShownFigure | None:
    """The rows of each metric that became better and worse, as a chart; None if there are none."""
    flipped = [
        (f"{pair.pair.other.name} {metric.name}", metric.improved, metric.worsened or 0)
        for pair in pairs
        for metric in pair.comparison.metrics
        if metric.improved is not None and metric.improved + (metric.worsened or 0)
    ]
    if not flipped:
        return None
    names, better, worse = zip(*flipped[:_CHARTED], strict=True)
    shown = [f"{name}: {counted(gained, 'row')} better, {lost:,} worse" for name, gained, lost in flipped[:_CHARTED]]
    left_out = f"; {len(flipped) - _CHARTED:,} more metrics in the table" if len(flipped) > _CHARTED else ""
    series = tuple(
        FigureSeries(name, values, tuple(f"{value:,}" for value in values))
        for name, values in (("better", better), ("worse", worse))
    )
    ticks = names if len(names) <= _NAMED else tuple(str(number) for number in range(1, len(names) + 1))
    return ShownFigure("Rows that changed", "; ".join(shown) + left_out, "metric", names, series, True, ticks)
