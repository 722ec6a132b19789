"""The time worked of an evaluation is the sum of its running spans."""

from __future__ import annotations

from collections import Counter

import pytest

from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.results import Usage
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.errors import NotFoundError
from doteval.store import HeldRange, LostUsage, Store, WorkerInfo
from doteval.store.counters import add_to_counters
from tests.support.passing_time import let_pass
from tests.support.store_workload import SPEC, begin, failed, results, rows

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
# What a slow machine may add.
SLACK = 50.0
USAGE = Usage(model="m", requests=1, attempts=1)


def worker(store: Store) -> int:
    return store.workers.begin(WorkerInfo("w", "h", 1))


def resume(evaluation: Evaluation, store: Store) -> None:
    store.evaluations.begin(evaluation.experiment, SPEC)


def hold(store: Store, worker_id: int, evaluation: Evaluation) -> None:
    store.workers.beat(worker_id, state=WorkerPhase.READY, holding=[HeldRange(evaluation.uid, 0, 1)])


def check(store: Store, evaluation: Evaluation, *, worked: float, elapsed: float) -> None:
    time = store.evaluations.work_time(evaluation.id)
    assert (time.worked, time.elapsed) == (pytest.approx(worked, abs=SLACK), pytest.approx(elapsed, abs=SLACK))


def work(store: Store, evaluation: Evaluation, worker_id: int, seconds: float, *indexes: int) -> None:
    """Time passes, and then rows have results."""
    let_pass(store, seconds)
    chosen = [row for row in rows(10) if row.index in indexes]
    assert store.results.write(results(evaluation, chosen), worker_id) == len(indexes)


def test_resumed_after_completion(store: Store) -> None:
    evaluation = begin(store, 2)
    work(store, evaluation, worker(store), HOUR, 0, 1)
    assert store.evaluations.complete(evaluation.id)
    let_pass(store, 3 * DAY)
    check(store, evaluation, worked=HOUR, elapsed=HOUR)
    resume(evaluation, store)
    store.rows.add(evaluation.id, rows(1, first=2))
    store.rows.set_total(evaluation.id, 3, complete=True, fingerprint="f")
    work(store, evaluation, worker(store), 10 * MINUTE, 2)
    check(store, evaluation, worked=HOUR + 10 * MINUTE, elapsed=3 * DAY + HOUR + 10 * MINUTE)
    assert store.evaluations.complete(evaluation.id)
    let_pass(store, DAY)
    check(store, evaluation, worked=HOUR + 10 * MINUTE, elapsed=3 * DAY + HOUR + 10 * MINUTE)


def test_retried_twice(store: Store) -> None:
    evaluation, mine = begin(store, 2), worker(store)
    let_pass(store, 5 * MINUTE)
    store.results.write(results(evaluation, rows(2), failed()), mine)
    assert store.evaluations.complete(evaluation.id)
    for minutes in (7, 11):
        let_pass(store, DAY)
        assert store.rows.retry_failed(evaluation.id) == 2
        assert store.evaluations.set_status(evaluation.id, EvaluationStatus.RUNNING)
        let_pass(store, minutes * MINUTE)
        store.results.write(results(evaluation, rows(2), failed("again")), mine)
        assert store.evaluations.complete(evaluation.id)
    check(store, evaluation, worked=23 * MINUTE, elapsed=2 * DAY + 23 * MINUTE)


def test_killed_and_resumed_days_later(store: Store) -> None:
    evaluation, mine = begin(store, 3), worker(store)
    work(store, evaluation, mine, 20 * MINUTE, 0)
    let_pass(store, 4 * DAY)
    check(store, evaluation, worked=20 * MINUTE, elapsed=4 * DAY + 20 * MINUTE)
    # What others note of a dead process is no work.
    store.workers.end(mine, WorkerEnd.LOST, reason="was killed")
    store.usage.add_lost([LostUsage(evaluation.uid, 1, 0, (USAGE,))], mine)
    with store._database.write() as connection:
        add_to_counters(connection, evaluation.id, None, Counter({"done": -1, "failed": 1}))
    resume(evaluation, store)
    work(store, evaluation, worker(store), 30 * MINUTE, 1, 2)
    assert store.evaluations.complete(evaluation.id)
    check(store, evaluation, worked=50 * MINUTE, elapsed=4 * DAY + 50 * MINUTE)


def test_killed_with_a_long_row_and_cancelled_days_later(store: Store) -> None:
    evaluation, mine = begin(store, 2), worker(store)
    let_pass(store, HOUR)
    hold(store, mine, evaluation)
    check(store, evaluation, worked=HOUR, elapsed=HOUR)
    let_pass(store, 2 * DAY)
    assert store.evaluations.set_status(evaluation.id, EvaluationStatus.CANCELLED)
    check(store, evaluation, worked=HOUR, elapsed=2 * DAY + HOUR)


def test_killed_before_its_first_result(store: Store) -> None:
    evaluation = begin(store, 2)
    let_pass(store, DAY)
    check(store, evaluation, worked=0.0, elapsed=DAY)
    resume(evaluation, store)
    work(store, evaluation, worker(store), MINUTE, 0, 1)
    check(store, evaluation, worked=MINUTE, elapsed=DAY + MINUTE)


def test_a_command_that_joins_cuts_nothing_off(store: Store) -> None:
    evaluation, mine = begin(store, 2), worker(store)
    let_pass(store, HOUR)
    hold(store, mine, evaluation)
    resume(evaluation, store)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.RUNNING)
    work(store, evaluation, mine, HOUR, 0, 1)
    # A status that is set under a condition that does not hold ends nothing.
    assert not store.evaluations.set_status(
        evaluation.id, EvaluationStatus.CANCELLED, only_from=EvaluationStatus.COMPLETED
    )
    check(store, evaluation, worked=2 * HOUR, elapsed=2 * HOUR)


def test_work_for_another_evaluation_does_not_count(store: Store) -> None:
    evaluation, other, mine = begin(store, 2), begin(store, 2, name="other"), worker(store)
    let_pass(store, HOUR)
    hold(store, mine, other)
    store.results.write(results(other, rows(1)), mine)
    check(store, evaluation, worked=0.0, elapsed=HOUR)
    check(store, other, worked=HOUR, elapsed=HOUR)


def test_no_such_evaluation(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no evaluation 99"):
        store.evaluations.work_time(99)
