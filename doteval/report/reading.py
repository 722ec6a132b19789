"""Reads what a report says from the store. Memory does not grow with the number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from doteval.analysis.distributions import LogCounts, Timeline, TimelineCounts
from doteval.analysis.history import HistoryStep, series_of
from doteval.core.experiments import Counts, Evaluation, EvaluationStatus, Experiment
from doteval.core.histogram import NO_LATENCY
from doteval.report.checks import all_checks, unfinished
from doteval.report.contents import Against, EvaluationDetail, Headline, HeldThresholds, ReportContents, ShownEvaluation
from doteval.report.rows import error_groups, failed_rows, flipped_rows, worst_rows
from doteval.store import Store
from doteval.store.comparisons import (
    ComparisonOptions,
    Selection,
    compare_pairs,
    compared,
    match_evaluations,
    select_evaluations,
)
from doteval.store.history import history_points
from doteval.store.price_origin import price_note

# Evaluations in the tables, and evaluations with charts and rows.
_SHOWN = 200
_DETAILED = 8
# Metrics of the first screen, rows of each kind, rows that became worse and that improved, experiments of the history.
_HEADLINES = 3
_ROWS = 4
_FLIPS = 3
_HISTORY = 30
# Metrics of one evaluation whose history is shown.
_SERIES = 4


def read_report(
    store: Store,
    experiment: Experiment,
    evaluations: Sequence[Evaluation],
    *,
    against: str | None = None,
    thresholds: HeldThresholds | None = None,
) -> ReportContents:
    """Read what a report on evaluations of an experiment says.

    against: the experiment, or the evaluations of one, to compare with; see `select_evaluations`.

    Raises NotFoundError: there is no such baseline, or it has none of these evaluations.
    """
    comparison = None if against is None else _against(store, experiment, evaluations, against)
    ordered = _ordered(evaluations, comparison)
    shown = tuple(
        ShownEvaluation(each, store.summary(each), store.evaluations.work_time(each.id)) for each in ordered[:_SHOWN]
    )
    detailed = shown[:_DETAILED]
    history = _history(store, experiment, [each.evaluation for each in detailed])
    timeline = TimelineCounts()
    replies = _replies(store, experiment)
    details = tuple(_detail(store, each, timeline, replies, history) for each in detailed)
    commands, labels = store.provenance.of(experiment), store.labels.of(experiment)
    course = timeline.timeline()
    usage = store.usage.report(experiment)
    checks = all_checks(shown, evaluations, comparison, commands, thresholds)
    return ReportContents(
        experiment=experiment,
        labels=labels,
        made_at=store.now(),
        storage=store.url,
        evaluations=len(evaluations),
        counts=_sum(evaluations),
        unfinished=tuple(unfinished(evaluations)),
        checks=tuple(checks),
        headlines=tuple(_headlines(shown)),
        shown=shown,
        left_out=len(evaluations) - len(shown),
        details=details,
        against=comparison,
        thresholds=thresholds,
        usage=usage,
        price_note=price_note(store, experiment, usage.models),
        timeline=course,
        worker_names={} if course is None else _worker_names(store, course),
        commands=commands,
    )


def _against(store: Store, experiment: Experiment, evaluations: Sequence[Evaluation], target: str) -> Against:
    base = select_evaluations(store, target)
    now = Selection(experiment, tuple(evaluations), named=False)
    # A report on some of the evaluations is about these: the baseline's others are not missing.
    everything = len(evaluations) == len(store.evaluations.of(experiment))
    names = {each.name for each in evaluations}
    kept = tuple(each for each in base.evaluations if everything or base.named or each.name in names)
    matched = match_evaluations(Selection(base.experiment, kept or base.evaluations, base.named), [now])
    comparison = compare_pairs(store, matched, ComparisonOptions(changed_rows=_FLIPS))
    pairs = compared(store, matched, comparison)
    if len(pairs) > _DETAILED:
        pairs.sort(key=lambda pair: pair.comparison.verdict.rank)
    sides = (base.experiment.name, experiment.name)
    if base.experiment.id == experiment.id:
        sides = (pairs[0].pair.baseline.name, pairs[0].pair.other.name)
    flips = tuple(
        (pair, metric, tuple(flipped_rows(store, pair.pair, metric, sides)))
        for pair in pairs[:_DETAILED]
        for metric in pair.comparison.metrics
        if metric.changed
    )
    return Against(
        sides,
        comparison,
        tuple(pairs[:_SHOWN]),
        max(0, len(pairs) - _SHOWN),
        flips[:_DETAILED],
        tuple(each.spec.nodeid for each in matched.only_others),
    )


def _ordered(evaluations: Sequence[Evaluation], against: Against | None) -> list[Evaluation]:
    """The evaluations, those that matter most first if they are many."""
    if len(evaluations) <= _DETAILED:
        return list(evaluations)
    ranks = {} if against is None else {pair.pair.other.id: pair.comparison.verdict.rank for pair in against.pairs}

    def rank(evaluation: Evaluation) -> tuple[int, bool, float, int]:
        counts = evaluation.counts
        failed = counts.failed / max(1, counts.failed + counts.done)
        return ranks.get(evaluation.id, 4), evaluation.status is EvaluationStatus.COMPLETED, -failed, evaluation.id

    return sorted(evaluations, key=rank)


def _detail(
    store: Store,
    shown: ShownEvaluation,
    timeline: TimelineCounts,
    replies: Mapping[str, LogCounts],
    history: Mapping[str, list[tuple[str, str, tuple[HistoryStep, ...]]]],
) -> EvaluationDetail:
    evaluation = shown.evaluation
    seconds = LogCounts(0.001)
    store.distributions.add_times(evaluation.id, seconds, timeline)
    scores = store.distributions.scores(evaluation.id)
    worst_score, worst = worst_rows(store, evaluation, scores, _ROWS)
    failed = evaluation.counts.failed
    return EvaluationDetail(
        shown,
        tuple(scores),
        seconds,
        replies.get(evaluation.spec.nodeid, LogCounts(0.001)),
        store.distributions.tokens(evaluation.id),
        error_groups(store, evaluation) if failed else (),
        failed_rows(store, evaluation, _ROWS) if failed else (),
        worst_score,
        worst,
        tuple(history.get(evaluation.spec.nodeid, ())[:_SERIES]),
    )


def _replies(store: Store, experiment: Experiment) -> dict[str, LogCounts]:
    return {
        group.name: LogCounts.of_latency(sum((model.usage.latency for model in group.models), NO_LATENCY))
        for group in store.usage.by_evaluation(experiment)
    }


def _history(
    store: Store, experiment: Experiment, evaluations: Sequence[Evaluation]
) -> dict[str, list[tuple[str, str, tuple[HistoryStep, ...]]]]:
    """The course of the metrics of evaluations up to this experiment, where there is more than one point."""
    before = [each for each in store.experiments.overviews() if each.experiment.created_at <= experiment.created_at]
    wanted = {each.spec.nodeid for each in evaluations}
    found: dict[str, list[tuple[str, str, tuple[HistoryStep, ...]]]] = {}
    points = history_points(store, before[:_HISTORY], wanted)
    for (nodeid, score, metric), steps in series_of(points).items():
        if len(steps) > 1 and steps[-1].point.experiment == experiment.name:
            found.setdefault(nodeid, []).append((score, metric, tuple(steps)))
    return found


def _worker_names(store: Store, course: Timeline) -> dict[int, str]:
    return store.distributions.worker_names([worker for worker, _ in course.workers if worker is not None])


def _headlines(shown: Sequence[ShownEvaluation]) -> Iterator[Headline]:
    """The first metric of each score of one evaluation, or of the first score of several."""
    first = [(each, score) for each in shown for score in each.summary if score.metrics]
    if len(shown) > 1:
        first = [(each, next(iter(each.summary))) for each in shown if any(score.metrics for score in each.summary)]
    for each, score in first[:_HEADLINES]:
        if score.metrics:
            yield Headline(each.evaluation.name if len(shown) > 1 else "", score.name, score.metrics[0])


def _sum(evaluations: Sequence[Evaluation]) -> Counts:
    totals = [each.counts.total for each in evaluations]
    known = [total for total in totals if total is not None]
    return Counts(
        sum(known) if len(known) == len(totals) else None,
        sum(each.counts.done for each in evaluations),
        sum(each.counts.failed for each in evaluations),
        sum(each.counts.skipped for each in evaluations),
    )
