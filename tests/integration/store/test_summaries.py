"""Stored metric values: they hold for one end of an evaluation and for the results that it had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from doteval.analysis.summary import ScoreColumn, Summary, summarize
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.metrics import Calculation, Interval, metric
from doteval.store import Store
from doteval.store.summary_tables import METRIC_VALUE, SUMMARY
from tests.support.store_workload import SPEC, begin, done, failed, results, rows, skipped


def ended(store: Store, *outcomes: Any, status: EvaluationStatus = EvaluationStatus.COMPLETED) -> Evaluation:
    """An evaluation that has ended with these outcomes of its rows; None leaves a row pending."""
    evaluation = begin(store, len(outcomes))
    for row, outcome in zip(rows(len(outcomes)), outcomes, strict=True):
        if outcome is not None:
            store.results.write(results(evaluation, [row], outcome), None)
    return end(store, evaluation, status)


def end(store: Store, evaluation: Evaluation, status: EvaluationStatus = EvaluationStatus.COMPLETED) -> Evaluation:
    store.evaluations.set_status(evaluation.id, status)
    return store.evaluations.by_uid(evaluation.uid)


def summaries(evaluation: Evaluation, *columns: ScoreColumn) -> list[Summary]:
    return [
        summarize(columns, evaluation.counts),
        summarize(columns, evaluation.counts, errors_as="excluded"),
    ]


COLUMNS = (
    ScoreColumn("right\x00", ("accuracy", "ci95", "std"), [True, True, False]),
    ScoreColumn("label", (), ["a", "b", "c"]),
    ScoreColumn("pair", ("f1", "recall(positive='a')"), [("a", "a"), ("b", "b"), ("a", "b")]),
    ScoreColumn("number", ("mean", "std"), [0.5, float("nan")], not_finite_rows=[1]),
)


def test_what_was_stored_is_read_again(store: Store) -> None:
    evaluation = ended(store, done(), done(), done(), failed(), skipped())
    as_false, excluded = summaries(evaluation, *COLUMNS)
    assert as_false["right\x00"]["accuracy"] == 0.5
    assert as_false["pair"].metrics[0].left_out == 1
    assert as_false["number"].metrics[0].note is not None
    assert store.summaries.write(evaluation, [as_false, excluded])
    assert store.summaries.read(evaluation) == as_false
    assert store.summaries.read(evaluation, "excluded") == excluded
    assert store.summaries.stored([evaluation]) == {evaluation.id}
    # Writing again replaces them.
    (other, _) = summaries(evaluation, ScoreColumn("right", ("accuracy",), [True, True, True]))
    assert store.summaries.write(evaluation, [other, excluded])
    assert store.summaries.read(evaluation) == other


def test_an_evaluation_without_scores_counts_as_stored(store: Store) -> None:
    evaluation = ended(store, failed(), failed())
    assert store.summaries.stored([evaluation]) == set()
    assert store.summaries.write(evaluation, summaries(evaluation))
    found = store.summaries.read(evaluation)
    assert found is not None
    assert (found.scores, found.counts.failed) == ((), 2)


def retry(store: Store, evaluation: Evaluation) -> None:
    assert store.rows.retry_failed(evaluation.id) == 1


def submit_again(store: Store, evaluation: Evaluation) -> None:
    store.evaluations.begin(evaluation.experiment, SPEC)


def late_result(store: Store, evaluation: Evaluation) -> None:
    store.results.write(results(evaluation, rows(4)[3:]), None)


def new_content(store: Store, evaluation: Evaluation) -> None:
    store.rows.replace(evaluation.id, rows(1, version="b"))


def shorter_dataset(store: Store, evaluation: Evaluation) -> None:
    store.rows.truncate(evaluation.id, 2)


@pytest.mark.parametrize("change", [retry, submit_again, late_result, new_content, shorter_dataset])
def test_values_of_earlier_results_are_neither_read_nor_written(
    store: Store, change: Callable[[Store, Evaluation], None]
) -> None:
    before = ended(store, done(), done(), failed(), None, status=EvaluationStatus.CANCELLED)
    found = summaries(before, ScoreColumn("exact_match", ("accuracy",), [True, True]))
    assert store.summaries.write(before, found)
    change(store, before)
    now = store.evaluations.by_uid(before.uid)
    assert store.summaries.read(now) is None
    assert not store.summaries.write(before, found)
    assert store.summaries.read(end(store, now)) is None


def test_values_of_an_earlier_end_are_not_read_though_all_counts_are_equal(store: Store) -> None:
    before = ended(store, done(), failed())
    found = summaries(before, ScoreColumn("exact_match", ("accuracy",), [True]))
    assert store.summaries.write(before, found)
    retry(store, before)
    store.evaluations.set_status(before.id, EvaluationStatus.RUNNING)
    store.results.write(results(before, rows(2)[1:], failed("again")), None)
    after = end(store, before)
    assert after.counts == before.counts
    assert store.summaries.read(after) is None
    assert not store.summaries.write(before, found)
    assert store.summaries.write(after, found)


def test_a_running_evaluation_has_none(store: Store) -> None:
    evaluation = begin(store, 1)
    assert not store.summaries.write(evaluation, summaries(evaluation))
    assert store.summaries.read(evaluation) is None
    # A reader's knowledge of the evaluation may be older than the store.
    old = replace(evaluation, status=EvaluationStatus.COMPLETED)
    assert not store.summaries.write(old, summaries(old))


def test_deleting_an_experiment_deletes_them(store: Store) -> None:
    evaluation = ended(store, done())
    store.summaries.write(evaluation, summaries(evaluation, COLUMNS[0]))
    store.experiments.delete(evaluation.experiment.name)
    with store._database.read() as connection:
        for table in (SUMMARY, METRIC_VALUE):
            assert connection.scalar(select(func.count()).select_from(table)) == 0


def test_intervals_of_users_that_are_no_numbers_are_none(store: Store) -> None:
    @metric
    def halved() -> Calculation:
        return Calculation(
            lambda scores: len(scores) / 2, interval=lambda _: Interval(float("nan"), float("inf"), "mine")
        )

    evaluation = ended(store, done())
    found = summaries(evaluation, ScoreColumn("a", ("halved",), [True]))
    assert store.summaries.write(evaluation, found)
    assert store.summaries.read(evaluation) == found[0]
    assert (found[0]["a"]["halved"], found[0]["a"].metrics[0].interval) == (0.5, None)
