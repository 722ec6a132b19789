"""Failed rows: their classes, the last failures, every attempt of a row, and retries of some rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doteval.core.experiments import Counts
from doteval.core.results import ErrorClass, Outcome, RowError, RowStatus
from doteval.store import Store, WorkerInfo
from tests.support.store_workload import begin, counted, done, failed, results, rows, sample


def failing(error_class: ErrorClass, *, started_at: float = 1_000_000.0) -> Outcome:
    error = RowError("SomeError", f"an error of class {error_class}", error_class, "Traceback ...")
    return replace(failed(), error=error, started_at=started_at)


CLASSES = [ErrorClass.EVALUATION] * 4 + [ErrorClass.INFRASTRUCTURE] * 3 + [ErrorClass.TIMEOUT] * 2 + [ErrorClass.CRASH]


def fill(store: Store) -> int:
    """An evaluation of 12 rows: 10 failed, with 4, 3, 2 and 1 of the classes; row 10 done, row 11 pending."""
    evaluation = begin(store, 12)
    worker = store.workers.begin(WorkerInfo("w", "host", 7))
    for row, error_class in zip(rows(10), CLASSES, strict=True):
        outcome = failing(error_class, started_at=1_000_000.0 + row.index)
        store.results.write(results(evaluation, [row], outcome), worker)
    store.results.write(results(evaluation, rows(1, first=10)), worker)
    return evaluation.id


def test_failures_are_counted_by_class_the_most_frequent_first(store: Store) -> None:
    evaluation_id = fill(store)
    expected = [("evaluation", 4), ("infrastructure", 3), ("timeout", 2), ("crash", 1)]
    assert list(store.attempts.classes(evaluation_id).items()) == expected
    # Those to be retried are still visible.
    store.rows.retry_failed(evaluation_id, classes=[ErrorClass.TIMEOUT])
    assert list(store.attempts.classes(evaluation_id).items()) == expected


@pytest.mark.parametrize(
    ("classes", "index", "expected"),
    [
        (None, None, set(range(10))),
        ([ErrorClass.INFRASTRUCTURE], None, {4, 5, 6}),
        ([ErrorClass.TIMEOUT, ErrorClass.CRASH], None, {7, 8, 9}),
        (None, 5, {5}),
        ([ErrorClass.EVALUATION], 5, set()),
        (None, 10, set()),
        (None, 11, set()),
    ],
)
def test_a_retry_of_some_failed_rows(
    store: Store, classes: list[ErrorClass] | None, index: int | None, expected: set[int]
) -> None:
    evaluation_id = fill(store)
    evaluation = next(iter(store.evaluations.running()))
    assert store.rows.count_failed(evaluation_id, classes=classes, index=index) == len(expected)
    assert store.rows.retry_failed(evaluation_id, classes=classes, index=index) == len(expected)
    assert store.rows.count_failed(evaluation_id, classes=classes, index=index) == 0
    assert {row.index for row in store.rows.pending(evaluation_id, 0, 11)} == expected | {11}
    failed_now = 10 - len(expected)
    assert store.evaluations.counts(evaluation_id) == counted(store, evaluation) == Counts(12, 1, failed_now)
    # The old errors stay until new results are in.
    assert sum(error.count for error in store.results.errors(evaluation_id, 10)) == 10


def test_the_last_failures_come_newest_first_with_their_worker(store: Store) -> None:
    evaluation_id = fill(store)
    last = store.attempts.last_failures(evaluation_id, 3)
    assert [attempt.index for attempt in last] == [9, 8, 7]
    assert last[0].worker == "host:7"
    assert last[0].error == RowError("SomeError", "an error of class crash", ErrorClass.CRASH)
    assert last[0].started_at.timestamp() == 1_000_009.0


def test_every_attempt_of_a_row_is_kept(store: Store) -> None:
    evaluation = begin(store, 2, epochs=2)
    first = rows(1)[0]
    workers = [store.workers.begin(WorkerInfo("w", "host", pid)) for pid in (1, 2, 3)]
    outcomes = [failing(ErrorClass.INFRASTRUCTURE), failing(ErrorClass.TIMEOUT), done()]
    for worker, outcome in zip(workers, outcomes, strict=True):
        store.results.write(results(evaluation, [first], outcome), worker)
        store.rows.retry_failed(evaluation.id)
    store.results.write(results(evaluation, [sample(first, 1)], failed()), None)
    store.rows.retry_failed(evaluation.id)

    attempts = store.attempts.of_row(evaluation.id, 0)
    assert [(each.sample, each.status, each.worker, each.replaced, each.to_be_retried) for each in attempts] == [
        (0, RowStatus.FAILED, "host:1", True, False),
        (0, RowStatus.FAILED, "host:2", True, False),
        (0, RowStatus.DONE, "host:3", False, False),
        (1, RowStatus.FAILED, None, False, True),
    ]
    assert [each.error and each.error.error_class for each in attempts] == [
        "infrastructure",
        "timeout",
        None,
        "evaluation",
    ]
    assert attempts[0].error is not None
    assert attempts[0].error.traceback == "Traceback ..."
    assert store.attempts.of_row(evaluation.id, 1) == []
