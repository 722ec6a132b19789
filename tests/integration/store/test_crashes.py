"""Crashes of rows: how many a row may have, and that a retry resets their number."""

from __future__ import annotations

from dataclasses import replace

from doteval.core.experiments import Evaluation
from doteval.core.results import ErrorClass, RowStatus
from doteval.core.run_config import RunConfig
from doteval.store import CrashedRow, Store, TimedOutRow
from tests.support.store_workload import SPEC, begin, done, failed, results, rows


def crash(store: Store, evaluation: Evaluation, *indexes: int) -> list[int]:
    """Kill a worker process with these rows in flight. Returns the rows that are given up."""
    taken = [CrashedRow(evaluation.id, index, 0) for index in indexes]
    given_up = store.crashes.record(taken, reason="was killed by SIGSEGV", worker_id=None)
    return [row.row_index for row in given_up]


def test_only_a_row_with_too_many_crashes_is_given_up(store: Store) -> None:
    evaluation = begin(store, 3)
    assert crash(store, evaluation, 0, 1) == []
    assert crash(store, evaluation, 1, 2) == [1]
    (record,) = store.results.records(evaluation.id)
    assert (record.row.index, record.outcome.status) == (1, RowStatus.FAILED)
    assert record.outcome.error is not None
    assert record.outcome.error.error_class is ErrorClass.CRASH
    assert "in 2 worker processes that died; the last one was killed by SIGSEGV" in record.outcome.error.message
    assert store.crashes.suspects(evaluation.id, 0, 2) == {(0, 0): 1, (1, 0): 2, (2, 0): 1}


def test_rows_killed_with_their_process_time_out_and_stored_results_stay(store: Store) -> None:
    evaluation = begin(store, 3)
    store.results.write(results(evaluation, rows(1)), None)
    ended = [TimedOutRow(evaluation.id, index, 0, started_at=1e9, seconds=5.5) for index in (0, 1)]
    for _ in range(2):
        # A writer that does not know whether the row was stored writes it again.
        store.crashes.time_out(ended)
    first, second = store.results.records(evaluation.id)
    assert (first.outcome.status, second.outcome.status) == (RowStatus.DONE, RowStatus.FAILED)
    assert (second.outcome.started_at, second.outcome.seconds) == (1e9, 5.5)
    assert second.outcome.error is not None
    assert second.outcome.error.error_class is ErrorClass.TIMEOUT
    assert store.evaluations.counts(evaluation.id).failed == 1
    assert store.rows.count_failed(evaluation.id, classes=[ErrorClass.TIMEOUT]) == 1


def test_the_evaluation_sets_the_number_of_crashes(store: Store) -> None:
    spec = replace(SPEC, config=RunConfig(max_crashes=4))
    evaluation = store.evaluations.begin(store.experiments.begin("x"), spec)
    store.rows.add(evaluation.id, rows(1))
    assert [crash(store, evaluation, 0) for _ in range(4)] == [[], [], [], [0]]


def test_each_retry_resets_the_number_of_crashes(store: Store) -> None:
    evaluation = begin(store, 2)
    for _ in range(3):
        assert crash(store, evaluation, 0) == []
        assert crash(store, evaluation, 0) == [0]
        assert store.rows.retry_failed(evaluation.id) == 1
    # The crashes stay visible, and the row still runs alone.
    assert [attempt.replaced for attempt in store.attempts.of_row(evaluation.id, 0)] == [True] * 8 + [False]
    assert store.crashes.suspects(evaluation.id, 0, 1)[0, 0] == 8
    assert crash(store, evaluation, 0) == []
    store.results.write(results(evaluation, rows(1)), None)
    assert next(iter(store.results.records(evaluation.id))).outcome == done()


def test_crashes_before_and_after_another_kind_of_failure_are_not_added_up(store: Store) -> None:
    evaluation = begin(store, 1)
    assert crash(store, evaluation, 0) == []
    store.results.write(results(evaluation, rows(1), failed()), None)
    # The row has a result: a crash that is reported late changes nothing.
    assert crash(store, evaluation, 0) == []
    store.rows.retry_failed(evaluation.id)
    assert crash(store, evaluation, 0) == []
    assert crash(store, evaluation, 0) == [0]
