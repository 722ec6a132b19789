"""The dispatcher, on a real store, publishes each pending row once, in row tasks of the right number and size."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from doteval.coordination import dispatcher as dispatcher_module
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.core.results import Outcome, RowStatus
from doteval.core.run_config import RunConfig
from doteval.errors import BrokerError
from doteval.store import NewResult, Store
from tests.support.dispatcher import (
    begin,
    begin_on,
    begin_with,
    covered,
    finish,
    hold,
    rows,
    sizes,
    spans,
    work,
    worker,
)
from tests.support.fake_queue import FakeQueue


def test_pending_rows_become_row_tasks_of_a_given_size(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 25)
    assert dispatcher.publish(evaluation) == 3
    assert spans(queue.take()) == [(0, 9), (10, 19), (20, 24)]
    assert {task.evaluation_uid for task in queue.published} == {evaluation.uid}


def test_published_rows_are_not_published_again(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 25)
    dispatcher.publish(evaluation)
    assert dispatcher.publish(evaluation) == 0
    dispatcher.settle(evaluation)
    assert len(queue.published) == 3


def test_rows_are_published_as_they_come_in(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 10, complete=False)
    dispatcher.publish(evaluation)
    store.rows.add(evaluation.id, rows(10, first=10))
    dispatcher.publish(evaluation)
    assert spans(queue.take()) == [(0, 9), (10, 19)]


def test_completed_rows_are_not_published(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 30)
    finish(store, evaluation, 0, 9)
    finish(store, evaluation, 25, 29)
    dispatcher.publish(evaluation)
    assert covered(queue.take()) == Counter(range(10, 25))


def test_the_size_is_chosen_so_that_every_slot_gets_several_tasks(store: Store, queue: FakeQueue) -> None:
    evaluation = begin(store, 200)
    Dispatcher(store, queue, DispatchOptions(slots=10)).publish(evaluation)
    assert set(sizes(queue.take())) == {5}


def test_row_tasks_are_small_and_few_until_the_first_results(store: Store, queue: FakeQueue) -> None:
    evaluation = begin(store, 1000)
    dispatcher = Dispatcher(store, queue, DispatchOptions(slots=1))
    assert dispatcher.publish(evaluation) == 5
    assert dispatcher.publish(evaluation) == 0
    assert spans(queue.take())[0] == (0, 9)
    for row in store.rows.pending(evaluation.id, 0, 9):
        store.results.write([NewResult(evaluation.id, row, Outcome(RowStatus.DONE, 0.0, 0.0625))], None)
    dispatcher.publish(store.evaluations.by_uid(evaluation.uid))
    # One second of rows that take a sixteenth of one.
    assert sizes(queue.take())[1:50] == [16] * 49


@pytest.mark.parametrize(
    ("slots", "concurrencies", "expected"), [(30, [], 12), (30, [50, 0], 24), (10, [100] * 20, 200)]
)
def test_until_the_first_results_enough_row_tasks_keep_every_worker_busy(
    store: Store, queue: FakeQueue, slots: int, concurrencies: list[int], expected: int
) -> None:
    evaluation = begin(store, 5_000)
    for number, concurrency in enumerate(concurrencies):
        worker(store, f"w{number}", concurrency=concurrency)
    dispatcher = Dispatcher(store, queue, DispatchOptions(slots=slots))
    assert dispatcher.publish(evaluation) == expected
    queue.take()
    assert dispatcher.publish(evaluation) == 0


@pytest.mark.parametrize(
    ("asked", "concurrency", "rows", "expected"),
    [
        # A quarter of those that run at once, by the process that runs fewer.
        (True, 100, 5_000, 25),
        # Or as many as otherwise.
        (True, 20, 5_000, 6),
        # Few rows are shared by all.
        (True, 100, 1_000, 15),
        (True, 100, 100, 1),
        # The broker pushes them.
        (False, 100, 5_000, 6),
    ],
)
def test_until_the_first_results_rows_that_run_side_by_side_travel_together(
    store: Store, queue: FakeQueue, asked: bool, concurrency: int, rows: int, expected: int
) -> None:
    queue.is_pull_based = asked
    evaluation = begin(store, rows)
    worker(store, "a", concurrency=concurrency)
    worker(store, "b", concurrency=concurrency * 2)
    Dispatcher(store, queue, DispatchOptions(slots=204)).publish(evaluation)
    assert set(sizes(queue.take())[:5]) == {expected}


def test_the_first_row_tasks_of_an_evaluation_wait_behind_those_of_another(store: Store, queue: FakeQueue) -> None:
    first = begin(store, 5_000)
    finish(store, first, 0, 9)
    second = begin_on(store, None, 1_000)
    dispatcher = Dispatcher(store, queue, DispatchOptions(rows_per_task=None, slots=20))
    assert dispatcher.publish(first) > 50
    assert dispatcher.publish(second) == 8


@pytest.mark.parametrize(
    ("concurrency", "seconds", "expected"),
    [
        # The rows that run at once, by the process that runs fewer.
        (100, 0.1, 100),
        (100, 0.01, 100),
        # No more than keep a worker process busy for a moment.
        (200, 1.0, 50),
        # As many as otherwise.
        (0, 0.1, 10),
        (100, 10.0, 10),
    ],
)
def test_rows_that_run_side_by_side_travel_together(
    store: Store, queue: FakeQueue, concurrency: int, seconds: float, expected: int
) -> None:
    evaluation = begin(store, 8_000)
    worker(store, "a", concurrency=concurrency)
    worker(store, "b", concurrency=concurrency * 2)
    finish(store, evaluation, 0, 9, seconds=seconds)
    Dispatcher(store, queue, DispatchOptions(slots=2)).publish(evaluation)
    published = sizes(queue.take())
    assert set(published[: len(published) * 3 // 4]) == {expected} == {max(published)}


@pytest.mark.parametrize(
    ("asked", "seconds", "expected"),
    [
        # For a second, one after the other, whatever else a worker process had slots for.
        (True, 0.02, 50),
        # With as many in each of its slots one worker process could hold them all.
        (False, 0.02, 12),
        # Slow rows travel in small row tasks, pulled or pushed.
        (True, 0.5, 10),
        (False, 0.5, 10),
    ],
)
def test_rows_one_at_a_time_travel_for_a_second(
    store: Store, queue: FakeQueue, asked: bool, seconds: float, expected: int
) -> None:
    queue.is_pull_based = asked
    evaluation = begin(store, 2_000)
    for name in ("a", "b"):
        worker(store, name, concurrency=1)
    finish(store, evaluation, 0, 9, seconds=seconds)
    Dispatcher(store, queue, DispatchOptions(slots=40)).publish(evaluation)
    assert set(sizes(queue.take())[:10]) == {expected}


def test_row_tasks_are_small_where_the_broker_pushes_them(store: Store, queue: FakeQueue) -> None:
    queue.is_pull_based = False
    evaluation = begin(store, 2_000)
    worker(store, concurrency=100)
    finish(store, evaluation, 0, 9, seconds=0.1)
    Dispatcher(store, queue, DispatchOptions(slots=2)).publish(evaluation)
    assert sizes(queue.take())[:190] == [10] * 190


def test_few_rows_travel_in_several_groups_for_each_worker_process(store: Store, queue: FakeQueue) -> None:
    evaluation = begin(store, 208)
    worker(store, concurrency=100)
    worker(store, concurrency=100)
    finish(store, evaluation, 0, 15, seconds=0.1)
    Dispatcher(store, queue, DispatchOptions(slots=200)).publish(evaluation)
    # A part of 32 of what each of them runs.
    assert set(sizes(queue.take())[:-1]) == {3}


@pytest.mark.parametrize(
    ("own", "option", "expected"),
    [
        # One row at a time, for a tenth of a second, unless an option of the worker processes says more.
        (False, 0, 10),
        (False, 50, 50),
        # What the decorator says.
        (True, 0, 30),
        (True, 50, 30),
    ],
)
def test_rows_that_run_at_once_are_set_by_the_evaluation_or_the_worker(
    store: Store, queue: FakeQueue, own: bool, option: int, expected: int
) -> None:
    evaluation = begin_with(store, 8_000, RunConfig(concurrency=30 if own else 1, concurrency_is_own=own))
    worker(store, concurrency=option)
    finish(store, evaluation, 0, 9, seconds=0.1)
    Dispatcher(store, queue, DispatchOptions(slots=2)).publish(evaluation)
    assert sizes(queue.take())[:100] == [expected] * 100


def test_every_slot_gets_several_row_tasks_when_few_rows_are_to_be_run(store: Store, queue: FakeQueue) -> None:
    evaluation = begin(store, 4_000)
    finish(store, evaluation, 0, 3_899)
    options = DispatchOptions(slots=5, total=100)
    Dispatcher(store, queue, options).publish(store.evaluations.by_uid(evaluation.uid))
    assert set(sizes(queue.take())) == {5}


def test_row_tasks_hold_whole_batches(store: Store, queue: FakeQueue) -> None:
    evaluation = begin_with(store, 1_000, RunConfig(batch_size=32))
    finish(store, evaluation, 0, 31, seconds=10.0)
    dispatcher = Dispatcher(store, queue, DispatchOptions(slots=1))
    dispatcher.publish(store.evaluations.by_uid(evaluation.uid))
    assert set(sizes(queue.take())[:-1]) == {32}


def test_the_last_row_tasks_are_smaller_so_that_all_worker_processes_end_together(
    store: Store, queue: FakeQueue
) -> None:
    evaluation = begin(store, 110)
    for name in ("a", "b"):
        worker(store, name, concurrency=1)
    finish(store, evaluation, 0, 9, seconds=10.0)
    dispatcher = Dispatcher(store, queue, DispatchOptions(slots=2))
    dispatcher.publish(store.evaluations.by_uid(evaluation.uid))
    tasks = queue.take()
    # A fourth of what is left, where two processes are to share it, and none beyond a group of ten.
    assert sizes(tasks) == [10] * 6 + [10, 7, 3, 5, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    assert covered(tasks) == Counter(range(10, 110))


def test_the_last_row_tasks_of_rows_with_gaps_are_smaller_too(store: Store, queue: FakeQueue) -> None:
    evaluation = begin(store, 400)
    worker(store, "a", concurrency=1)
    for first in range(0, 400, 10):
        finish(store, evaluation, first, first + 8, seconds=10.0)
    dispatcher = Dispatcher(store, queue, DispatchOptions(slots=1))
    dispatcher.publish(store.evaluations.by_uid(evaluation.uid))
    pending = [sum(index % 10 == 9 for index in range(task.first, task.last + 1)) for task in queue.take()]
    assert pending == [10, 10, 10, 5, 2, 1, 1, 1]


@pytest.mark.parametrize(("seconds", "rows_per_task"), [(0.0001, None), (10.0, 10)])
def test_the_last_row_tasks_are_no_smaller_if_rows_are_fast_or_their_number_is_given(
    store: Store, queue: FakeQueue, seconds: float, rows_per_task: int | None
) -> None:
    evaluation = begin(store, 110)
    worker(store, "a", concurrency=1)
    finish(store, evaluation, 0, 9, seconds=seconds)
    options = DispatchOptions(rows_per_task=rows_per_task, slots=2)
    Dispatcher(store, queue, options).publish(store.evaluations.by_uid(evaluation.uid))
    assert len(set(sizes(queue.take())[:-1])) == 1


def test_while_the_dataset_is_read_no_row_task_is_the_last(store: Store, queue: FakeQueue) -> None:
    evaluation = begin(store, 110, complete=False)
    worker(store, "a", concurrency=1)
    finish(store, evaluation, 0, 9, seconds=10.0)
    Dispatcher(store, queue, DispatchOptions(slots=2)).publish(store.evaluations.by_uid(evaluation.uid))
    assert sizes(queue.take()) == [10] * 10


def test_the_queue_is_not_filled_beyond_its_limit(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "MOST_QUEUED", 7)
    monkeypatch.setattr(dispatcher_module, "_PUBLISHED_AT_ONCE", 3)
    evaluation = begin(store, 200)
    assert dispatcher.publish(evaluation) == 7
    assert dispatcher.publish(evaluation) == 0
    work(store, evaluation, queue.take())
    assert dispatcher.publish(evaluation) == 7
    work(store, evaluation, queue.take())
    assert dispatcher.publish(evaluation) == 6
    assert covered(queue.published) == Counter(range(200))


def test_several_dispatchers_at_once_publish_nothing_twice(
    store: Store, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few at a time: the dispatchers meet at the cursor again and again.
    monkeypatch.setattr(dispatcher_module, "_PUBLISHED_AT_ONCE", 2)
    evaluation = begin(store, 200)
    start = threading.Barrier(4)
    published: list[int] = []

    def run() -> None:
        dispatcher = Dispatcher(store, queue, DispatchOptions(rows_per_task=3))
        start.wait(60)
        published.append(dispatcher.publish(evaluation))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(published) == len(queue.published) == 67
    assert covered(queue.published) == Counter(range(200))


def test_rows_held_by_a_live_worker_are_not_published(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 40)
    hold(store, worker(store, "a"), evaluation, (5, 7), (18, 21))
    hold(store, worker(store, "b"), evaluation, (0, 1), (39, 39))
    dispatcher.publish(evaluation)
    assert covered(queue.published) == Counter({*range(2, 5), *range(8, 18), *range(22, 39)})


def test_rows_held_of_another_evaluation_or_by_a_worker_that_left_are_published(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue
) -> None:
    other = begin(store, 10, name="other")
    evaluation = begin(store, 10)
    hold(store, worker(store, "a"), other, (0, 9))
    gone = worker(store, "b")
    hold(store, gone, evaluation, (0, 9))
    store.workers.end(gone, reason="was killed")
    dispatcher.publish(evaluation)
    assert covered(queue.published) == Counter(range(10))


def test_restart_publishes_pending_rows_unless_messages_wait(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue
) -> None:
    evaluation = begin(store, 20)
    dispatcher.publish(evaluation)
    dispatcher.restart(evaluation)
    assert dispatcher.publish(evaluation) == 0
    work(store, evaluation, queue.take()[:1])
    dispatcher.restart(evaluation)
    dispatcher.publish(evaluation)
    assert spans(queue.take()) == [(10, 19)]


def test_an_unavailable_broker_is_an_error(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 10)
    queue.unreachable = True
    with pytest.raises(BrokerError):
        dispatcher.settle(evaluation)
    queue.unreachable = False
    dispatcher.settle(evaluation)
    assert covered(queue.published) == Counter(range(10))
