"""Computes the metrics of evaluations that have ended, and stores them for processes without the evaluation file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from doteval.analysis.summary import ScoreColumn, Summary, summarize_evaluation
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.store import Store


def summary_of(store: Store, evaluation: Evaluation) -> Summary:
    """The metrics of an evaluation: the stored ones, else those of its results now, stored if it has ended.

    They are not stored by a process that does not know all of them. Call it where the evaluation file is loaded.
    """
    return store.summaries.read(evaluation) or compute_summary(store, evaluation)


def compute_summary(store: Store, evaluation: Evaluation) -> Summary:
    """`summary_of`, computed anew in any case."""
    columns = store.results.score_columns(evaluation.id)
    if evaluation.status is EvaluationStatus.RUNNING:
        return summarize_evaluation(evaluation, columns)
    summaries = summaries_of_columns(evaluation, columns)
    if not summaries[0].unknown_metrics:
        store.summaries.write(evaluation, summaries)
    return summaries[0]


def summaries_of_columns(evaluation: Evaluation, columns: Sequence[ScoreColumn]) -> tuple[Summary, Summary]:
    """The metrics of the scores of an evaluation, with failed rows as False and without them."""
    as_false = summarize_evaluation(evaluation, columns)
    if evaluation.counts.failed:
        return as_false, summarize_evaluation(evaluation, columns, "excluded")
    return as_false, replace(as_false, errors_as="excluded")


def store_missing_summaries(store: Store, evaluations: Iterable[Evaluation]) -> None:
    """Compute and store the metrics of those evaluations that have ended by now and have none stored."""
    current = [store.evaluations.by_uid(each.uid) for each in evaluations]
    stored = store.summaries.stored(current)
    for evaluation in current:
        if evaluation.status is not EvaluationStatus.RUNNING and evaluation.id not in stored:
            compute_summary(store, evaluation)
