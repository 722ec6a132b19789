"""`recompute` computes the stored metrics of an experiment anew, from the stored scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from doteval.analysis.summary import ScoreColumn, Summary
from doteval.coordination.ended_evaluations import summaries_of_columns
from doteval.coordination.provenance import CommandOrigin, record_command
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.plugins import did_you_mean
from doteval.errors import NotFoundError, UsageError
from doteval.metrics.registry import available
from doteval.store import Store
from doteval.submission.evaluation_files import with_evaluation_files


@dataclass(frozen=True, slots=True)
class MetricChanges:
    """What is to be computed in another way.

    reducer: the name of what reduces the samples of a row; None leaves it as it is.
    metrics: the names of the metrics of a score, in place of its own; other scores keep theirs.
    """

    reducer: str | None = None
    metrics: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Recomputed:
    """The metrics of an evaluation before and after.

    before: None if none were stored for its results.
    after: with failed rows as False, and without them.
    """

    evaluation: Evaluation
    before: Summary | None
    after: tuple[Summary, Summary]


def recompute(store: Store, evaluations: Sequence[Evaluation], changes: MetricChanges) -> list[Recomputed]:
    """Compute the metrics of evaluations, and store nothing; `store_recomputed` does.

    The evaluation files are loaded if no installed package defines a metric. No row runs. At most the scores of one
    evaluation are in memory at a time.

    Raises EvaluationFileError: such a file is not there or cannot be loaded.
    Raises NotFoundError: nothing defines a metric, or no evaluation has one of the scores.
    Raises UsageError: an evaluation is running, a metric that was asked for has no value, or the files are in several
        root directories.
    """
    running = [each.spec.nodeid for each in evaluations if each.status is EvaluationStatus.RUNNING]
    if running:
        raise UsageError(
            f"{', '.join(running)} {'is' if len(running) == 1 else 'are'} running",
            remedy="Its metrics are stored when it has ended. --evaluation chooses others.",
        )
    found = [_recomputed(store, each, changes) for each in evaluations]
    _check_scores(found, changes)
    if any(each.after[0].unknown_metrics for each in found):

        def again() -> None:
            found[:] = [
                _recomputed(store, each.evaluation, changes) if each.after[0].unknown_metrics else each
                for each in found
            ]

        with_evaluation_files([each.evaluation for each in found if each.after[0].unknown_metrics], again)
    unknown = [(name, each.evaluation.spec.nodeid) for each in found for name in each.after[0].unknown_metrics]
    if unknown:
        raise NotFoundError(
            f"nothing defines the metric {', '.join(f'{name} of {nodeid}' for name, nodeid in unknown)}",
            remedy=did_you_mean(
                unknown[0][0],
                available(),
                "Define it in the evaluation file, or install the package that announces it.",
            ),
        )
    _check_values(found, changes)
    return found


def store_recomputed(
    store: Store, found: Sequence[Recomputed], changes: MetricChanges, command: Sequence[str]
) -> list[Evaluation]:
    """Store metrics that were computed, and the command that did so as one of the experiment's, if those are known.

    Returns the evaluations whose metrics were not stored, since rows run again.
    """
    if not found:
        return []
    refused = []
    for each in found:
        if changes.reducer is not None:
            store.evaluations.reconfigure(each.evaluation.id, lambda config: replace(config, reducer=changes.reducer))
        if not store.summaries.write(each.evaluation, each.after):
            refused.append(each.evaluation)
    evaluation = found[0].evaluation
    # The first command that is recorded counts as the one that began the experiment. doteval 0.2 recorded none.
    if store.provenance.of(evaluation.experiment):
        record_command(store, evaluation.experiment, CommandOrigin(command, Path(evaluation.config.root or Path.cwd())))
    return refused


def _recomputed(store: Store, evaluation: Evaluation, changes: MetricChanges) -> Recomputed:
    columns = store.results.score_columns(evaluation.id)
    before = store.summaries.read(evaluation)
    if changes.reducer is not None:
        config = replace(evaluation.config, reducer=changes.reducer)
        evaluation = replace(evaluation, spec=replace(evaluation.spec, config=config))
    return Recomputed(
        evaluation, before, summaries_of_columns(evaluation, [_changed(each, changes) for each in columns])
    )


def _changed(column: ScoreColumn, changes: MetricChanges) -> ScoreColumn:
    metrics = (changes.metrics or {}).get(column.name)
    return column if metrics is None else replace(column, metrics=metrics)


def _check_values(found: Sequence[Recomputed], changes: MetricChanges) -> None:
    """Refuse metrics that were asked for and have no value, rather than replace those that have one."""
    for each in found:
        for score in each.after[0]:
            for metric in score.metrics:
                if score.name in (changes.metrics or {}) and metric.value is None:
                    raise UsageError(
                        f"{metric.name} of {score.name} in {each.evaluation.spec.nodeid} has no value: {metric.note}",
                        remedy="Choose another metric; nothing was stored.",
                    )


def _check_scores(found: Sequence[Recomputed], changes: MetricChanges) -> None:
    known = dict.fromkeys(score.name for each in found for score in each.after[0])
    for name in changes.metrics or ():
        if name not in known:
            raise NotFoundError(
                f"no evaluation has a score {name!r}",
                remedy=did_you_mean(name, known),
            )
