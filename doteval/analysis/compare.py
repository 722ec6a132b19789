"""Compares evaluations row by row, and says whether one is better.

`compare_evaluations` tests each metric of two evaluations; `conclude` adjusts the p-values for their number and gives
the verdicts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy

from doteval.analysis.figures import difference_interval, figure, figure_beside
from doteval.analysis.paired_scores import NoTest, PairedMetric, PairedRows, paired_metrics
from doteval.analysis.paired_tests import ALPHA, POWER, Estimate, detectable_difference, holm
from doteval.analysis.score_arrays import EvaluationArrays
from doteval.core.wording import counted
from doteval.metrics import Interval

# With an exact two-sided test, fewer units than this cannot have a p-value below 0.05.
LEAST_UNITS = 6

# Rows that a gap names, at most.
_ROWS_NAMED = 5

ALONE = "without a counterpart"
"""How a gap describes rows that only one side has."""


class Verdict(StrEnum):
    """The result of a comparison: whether an experiment is better or worse than the baseline."""

    BETTER = "BETTER"
    WORSE = "WORSE"
    NO_DIFFERENCE = "NO DIFFERENCE SEEN"
    UNDECIDED = "UNDECIDED"

    @property
    def rank(self) -> int:
        """Its place in an order from what needs attention to what does not: WORSE, UNDECIDED, BETTER, no difference."""
        return _FROM_WORST.index(self)


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """A row whose score differs: its index in either dataset, and its score, the mean of its samples.

    failed: on which side a sample of the row failed, which counts as False.
    """

    baseline_index: int
    index: int
    baseline: float
    value: float
    failed: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows that one side has no result for.

    experiment: the side; where two evaluations of one experiment are compared, with the evaluation.
    what: why, to be read after a number of rows.
    rows: the indexes of the first ones.
    """

    experiment: str
    what: str
    count: int
    rows: tuple[int, ...]

    def __str__(self) -> str:
        named = ", ".join(map(str, self.rows)) + (", ..." if self.count > len(self.rows) else "")
        where = f" ({'row' if self.count == 1 else 'rows'} {named})" if self.rows else ""
        return f"{self.experiment}: {counted(self.count, f'row {self.what}', f'rows {self.what}')}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricComparison:
    """One metric of one score on two sides, over the `n` rows that have a value on both.

    What is not known, as for a metric that cannot be compared, keeps its default.

    baseline, value: the metric of these rows on either side; `difference` is value - baseline.
    interval: the 95% interval of the difference.
    p_value: of the hypothesis that there is no difference; `adjusted_p_value` is adjusted for all that is compared.
    test: what computed the p-value.
    units: what is independent: rows, or clusters of rows.
    better: whether higher or lower values are better.
    improved, worsened: the number of rows whose value became better and worse; None for metrics that have no value for
        a single row, such as `f1`.
    detectable: the difference that would have been seen with a power of 80%; None if that is not known.
    missing: samples without a value on one of the sides.
    worst_difference: the least favourable difference that any values of these samples give; None if there is no bound.
    tolerated: for the verdict WORSE, whether the whole interval is within the drop that is allowed.
    reasons: why the verdict is not better, in sentences.
    of_shares: whether the values are shares, from 0 to 1.
    changed: the rows that changed most, as many as were asked for: those that became worse, and those that improved.
    """

    score: str
    metric: str
    n: int
    verdict: Verdict
    units: int = 0
    baseline: float | None = None
    value: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    test: str = "none"
    better: str = "higher"
    improved: int | None = None
    worsened: int | None = None
    detectable: float | None = None
    missing: int = 0
    worst_difference: float | None = None
    tolerated: bool = False
    reasons: tuple[str, ...] = ()
    of_shares: bool = False

    @property
    def name(self) -> str:
        """The score and the metric, as people read them."""
        return " ".join(filter(None, (self.score, self.metric)))

    @property
    def reference(self) -> str:
        """The score and the metric, as options take them."""
        return ".".join(filter(None, (self.score, self.metric)))

    changed: tuple[ChangedRow, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class EvaluationComparison:
    """Two evaluations, row by row.

    baseline, experiment: the names of the experiments; `evaluation` and `other_evaluation` those of the evaluations.
    matched: the number of rows that both have; `gaps` says which rows have no result on a side.
    unfinished: why not every row of a side has a result.
    only_other: scores that only the other side has; they are not compared.
    differences: how datasets, samples and metrics differ, in sentences.
    """

    baseline: str
    experiment: str
    evaluation: str
    other_evaluation: str
    matched: int
    gaps: tuple[Gap, ...]
    unfinished: tuple[str, ...]
    only_other: tuple[str, ...]
    differences: tuple[str, ...] = ()
    metrics: tuple[MetricComparison, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return overall(metric.verdict for metric in self.metrics)


@dataclass(frozen=True, slots=True)
class MissingEvaluation:
    """An evaluation of the baseline that an experiment does not have, or has not run."""

    experiment: str
    evaluation: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Experiments against a baseline; `verdict` is the worst of all.

    missing: evaluations that only the baseline has; they make the verdict UNDECIDED or worse.
    max_drop: the drop that is allowed, None if none was given.
    """

    evaluations: tuple[EvaluationComparison, ...]
    missing: tuple[MissingEvaluation, ...]
    max_drop: float | None

    @property
    def metrics(self) -> list[tuple[EvaluationComparison, MetricComparison]]:
        """Every metric with its evaluation."""
        return [(evaluation, metric) for evaluation in self.evaluations for metric in evaluation.metrics]

    @property
    def verdict(self) -> Verdict:
        found = [metric.verdict for _, metric in self.metrics] + [Verdict.UNDECIDED for _ in self.missing]
        return overall(found)


_FROM_WORST = (Verdict.WORSE, Verdict.UNDECIDED, Verdict.BETTER, Verdict.NO_DIFFERENCE)


def overall(verdicts: Collection[Verdict] | Any) -> Verdict:
    """The verdict on several: WORSE if one is, else UNDECIDED if one is, else BETTER if one is. None is UNDECIDED.

    >>> overall([Verdict.BETTER, Verdict.UNDECIDED]).value
    'UNDECIDED'
    """
    found = set(verdicts)
    return next((verdict for verdict in _FROM_WORST if verdict in found), Verdict.UNDECIDED)


@dataclass(frozen=True, slots=True)
class TestedEvaluation:
    """Two evaluations whose metrics are tested; `conclude` gives the verdicts.

    comparison: everything but its metrics.
    """

    # Not a test, whatever pytest takes its name for.
    __test__ = False

    comparison: EvaluationComparison
    metrics: tuple[PairedMetric | NoTest, ...]


def compare_evaluations(
    baseline: EvaluationArrays,
    other: EvaluationArrays,
    *,
    scores: Collection[str] = (),
    lower_is_better: Collection[str] = (),
    changed_rows: int = 0,
) -> TestedEvaluation:
    """Test each metric of two evaluations whose rows are paired by key.

    A row counts once: samples are reduced to their mean first. A failed sample counts as its metric says, as False for
    most. All metrics that are means (`accuracy`, `mean`) are one comparison.

    scores: only these; all without any.
    lower_is_better: scores of which lower values are better, whatever their metrics say.
    changed_rows: how many rows that became worse are kept for each metric, and how many that improved.
    """
    rows = PairedRows(baseline, other)
    chosen = [name for name in baseline.scores if not scores or name in scores]
    metrics = [
        metric
        for name in chosen
        for metric in paired_metrics(rows, name, flipped=name in lower_is_better, changed_rows=changed_rows)
    ]
    comparison = EvaluationComparison(
        baseline=baseline.experiment,
        experiment=other.experiment,
        evaluation=baseline.name,
        other_evaluation=other.name,
        matched=rows.pairs.both,
        gaps=tuple(_gaps(rows)),
        unfinished=tuple(side.unfinished for side in (baseline, other) if side.unfinished is not None),
        only_other=tuple(
            name for name in other.scores if name not in baseline.scores and (not scores or name in scores)
        ),
        differences=tuple(_differences(rows, chosen)),
    )
    return TestedEvaluation(comparison, tuple(metrics))


def conclude(
    tested: Sequence[TestedEvaluation],
    missing: Sequence[MissingEvaluation] = (),
    *,
    max_drop: float | None = None,
) -> Comparison:
    """The verdicts on all metrics that were tested.

    BETTER and WORSE need a p-value below 0.05 after Holm's adjustment for all that is compared. Otherwise the verdict
    is NO DIFFERENCE SEEN, or UNDECIDED with `max_drop`, if the interval has a greater drop than this.

    A good verdict (BETTER, NO DIFFERENCE SEEN) becomes UNDECIDED if rows that failed, were skipped, are pending, have
    no counterpart or lack the score could change it: it has to be the same if each of them had the value that is best
    for the baseline and worst for the other side. If a score has no least and greatest value, any such row makes it
    UNDECIDED; so does an evaluation that has not ended.
    """
    drafts = [metric for each in tested for metric in each.metrics if isinstance(metric, PairedMetric)]
    p_values = [metric.estimate.p_value for metric in drafts]
    adjusted = iter(holm([1.0 if p_value is None else p_value for p_value in p_values]))
    worst = [metric.worst.p_value if metric.worst is not None else metric.estimate.p_value for metric in drafts]
    worst_adjusted = iter(holm([1.0 if p_value is None else p_value for p_value in worst]))
    found = []
    for each in tested:
        unfinished = each.comparison.unfinished
        concluded = [
            MetricComparison(
                score=metric.score,
                metric=metric.metric,
                n=metric.n,
                verdict=Verdict.UNDECIDED,
                reasons=(metric.reason,),
            )
            if isinstance(metric, NoTest)
            else _concluded(metric, unfinished, next(adjusted), next(worst_adjusted), len(drafts), max_drop)
            for metric in each.metrics
        ]
        found.append(replace(each.comparison, metrics=tuple(concluded)))
    return Comparison(tuple(found), tuple(missing), max_drop)


def _concluded(
    metric: PairedMetric,
    unfinished: Sequence[str],
    adjusted: float,
    worst_adjusted: float,
    comparisons: int,
    max_drop: float | None,
) -> MetricComparison:
    estimate, sign = metric.estimate, metric.sign
    verdict, reasons = _verdict(estimate, sign, adjusted, max_drop)
    if verdict in (Verdict.BETTER, Verdict.NO_DIFFERENCE):
        doubts = list(unfinished)
        if metric.missing:
            samples = counted(metric.missing, "result is missing or failed", "results are missing or failed")
            if metric.worst is None:
                doubts.append(f"{samples}, and nothing bounds the values that they might have")
            elif _verdict(metric.worst, sign, worst_adjusted, max_drop)[0] is not verdict:
                doubts.append(f"{samples}, which could change the verdict")
        if doubts:
            verdict, reasons = Verdict.UNDECIDED, doubts
    low = _low(estimate, sign)
    within = max_drop is not None and low is not None and low >= -max_drop
    error = estimate.standard_error
    return MetricComparison(
        score=metric.score,
        metric=metric.metric,
        n=metric.n,
        units=estimate.units,
        baseline=metric.baseline,
        value=metric.value,
        difference=estimate.difference,
        interval=estimate.interval,
        p_value=estimate.p_value,
        adjusted_p_value=None if estimate.p_value is None else adjusted,
        test=estimate.test,
        better="higher" if sign > 0 else "lower",
        improved=metric.improved,
        worsened=metric.worsened,
        detectable=None if error is None else detectable_difference(error, estimate.units, comparisons),
        missing=metric.missing,
        worst_difference=metric.worst.difference if metric.worst is not None else None,
        verdict=verdict,
        tolerated=verdict is Verdict.WORSE and within,
        reasons=tuple(reasons),
        of_shares=metric.of_shares,
        changed=tuple(ChangedRow(*change) for change in metric.changed),
    )


def power_sentence(metric: MetricComparison) -> str | None:
    """Say how small a difference the comparison would have seen. Returns None if that is not known."""
    if metric.detectable is None:
        return None
    rows = counted(metric.n, "row")
    if metric.units != metric.n:
        rows += f" in {counted(metric.units, 'cluster')}"
    if metric.of_shares and metric.detectable >= 1:
        return f"{rows} are too few to see even the greatest drop with {POWER:.0%} power"
    change = "drop" if metric.better == "higher" else "rise"
    amount = f"{100 * metric.detectable:.2g} points" if metric.of_shares else f"{metric.detectable:.2g}"
    return f"with {rows} a {change} of {amount} would be seen with {POWER:.0%} power"


def regressions(comparison: Comparison, *, strict: bool = False) -> list[str]:
    """Return the reasons why a comparison must not pass, in sentences with the figures; none if it may.

    WORSE does not pass unless the whole interval is within the drop that is allowed, and neither does an evaluation
    that has not ended or that the experiment does not have. With `strict`, UNDECIDED does not pass.
    """
    found = [f"{missing.experiment} has no evaluation {missing.evaluation}" for missing in comparison.missing]
    for evaluation in comparison.evaluations:
        found += evaluation_regressions(evaluation, strict=strict)
    return found


def evaluation_regressions(evaluation: EvaluationComparison, *, strict: bool = False) -> list[str]:
    """Return the reasons why one of the evaluations must not pass: see `regressions`."""
    found = list(evaluation.unfinished)
    for metric in evaluation.metrics:
        fails = metric.verdict is Verdict.WORSE and not metric.tolerated
        if fails or (strict and metric.verdict is Verdict.UNDECIDED):
            found.append(
                f"{evaluation.other_evaluation} {metric.reference} is {metric.verdict.value}{_figures(metric)}"
            )
    return found


def _figures(metric: MetricComparison) -> str:
    why = "".join(f": {reason}" for reason in metric.reasons[:1])
    if metric.baseline is None or metric.value is None:
        return why
    interval = metric.interval
    within = f", 95% interval of the difference {difference_interval(interval)}" if interval else ""
    p_value = "" if metric.adjusted_p_value is None else f", p {metric.adjusted_p_value:.2g}"
    return f" ({figure(metric.baseline)} in the baseline, now {figure(metric.value)}{within}{p_value}){why}"


def _verdict(estimate: Estimate, sign: int, adjusted: float, max_drop: float | None) -> tuple[Verdict, list[str]]:
    if estimate.p_value is None:
        return Verdict.UNDECIDED, ["there is no test of this difference"]
    if adjusted < ALPHA:
        return (Verdict.BETTER if sign * estimate.difference > 0 else Verdict.WORSE), []
    if estimate.units < LEAST_UNITS:
        return Verdict.UNDECIDED, [f"no difference can be seen with fewer than {LEAST_UNITS} rows or clusters"]
    if max_drop is not None:
        low = _low(estimate, sign)
        if low is None:
            return Verdict.UNDECIDED, ["without an interval, no drop can be excluded"]
        if low < -max_drop:
            return Verdict.UNDECIDED, [
                f"a drop of {figure_beside(-low, max_drop)} cannot be excluded, and {max_drop:g} is allowed"
            ]
    return Verdict.NO_DIFFERENCE, []


def _low(estimate: Estimate, sign: int) -> float | None:
    """The least favourable end of the interval, positive where better."""
    if estimate.interval is None:
        return None
    return estimate.interval.low if sign > 0 else -estimate.interval.high


def _gaps(rows: PairedRows) -> list[Gap]:
    """The rows that have no result on a side, by reason."""
    found = []
    sides = ((rows.baseline, rows.pairs.right, rows.pairs.left), (rows.other, rows.pairs.left, rows.pairs.right))
    for side, theirs, own in sides:
        name = rows.name_of(side)
        alone = side.indexes[numpy.sort(own[(theirs < 0) & (own >= 0)])]
        parts = [
            (ALONE, alone),
            ("failed", side.indexes[side.failed > 0]),
            ("skipped", side.indexes[side.skipped > 0]),
        ]
        for what, indexes in parts:
            if len(indexes):
                found.append(Gap(name, what, len(indexes), tuple(indexes[:_ROWS_NAMED].tolist())))
    return found


def _differences(rows: PairedRows, scores: Sequence[str]) -> Iterator[str]:
    """Say how two evaluations differ in their rows, in the samples of a row, and in the metrics of a score."""
    pairs, sides = rows.pairs, (rows.baseline, rows.other)
    only = [
        f"{counted(len(side) - pairs.both, 'row is', 'rows are')} only in {rows.name_of(side)}"
        for side in sides
        if len(side) > pairs.both
    ]
    if only:
        yield f"the dataset differs: {', '.join(only)}"
    elif (rows.baseline.indexes[pairs.left] != rows.other.indexes[pairs.right]).any():
        yield "the dataset has the same rows in another order"
    if rows.baseline.samples != rows.other.samples:
        yield f"the numbers of samples of a row differ: {rows.baseline.samples} | {rows.other.samples}"
    for name in scores:
        if (other := rows.other.scores.get(name)) is None:
            continue
        metrics = [set(side.metrics) for side in (rows.baseline.scores[name], other)]
        if metrics[0] != metrics[1]:
            shown = [", ".join(sorted(each)) or "none" for each in metrics]
            yield f"the metrics of {name} differ: {shown[0]} | {shown[1]}"
