"""The dispatcher detects lost rows and publishes them again, once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from doteval.broker.messages import RowTask
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.errors import BrokerError
from doteval.store import Store
from doteval.store.rows import Rows
from tests.support.clock import Clock
from tests.support.dispatcher import DRAINED, begin, covered, finish, hold, work, worker
from tests.support.fake_queue import FakeQueue


def lost_again(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Callable[[], float], evaluation: Evaluation
) -> list[RowTask]:
    """What is published once the queue has been drained for long enough. Everything before was lost."""
    queue.take()
    assert isinstance(clock, Clock)
    before = len(queue.published)
    dispatcher.settle(evaluation)
    assert len(queue.published) == before
    clock.now += DRAINED
    dispatcher.settle(evaluation)
    return queue.published[before:]


def test_lost_rows_are_published_again_when_the_queue_has_drained(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin(store, 30)
    dispatcher.publish(evaluation)
    finish(store, evaluation, 10, 19)
    assert covered(lost_again(store, dispatcher, queue, clock, evaluation)) == Counter([*range(10), *range(20, 30)])
    work(store, evaluation, queue.take())
    assert dispatcher.settle(evaluation).status is EvaluationStatus.COMPLETED


def test_lost_rows_are_found_although_the_last_rows_are_done(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin(store, 30)
    finish(store, evaluation, 10, 29)
    dispatcher.publish(evaluation)
    assert covered(lost_again(store, dispatcher, queue, clock, evaluation)) == Counter(range(10))


def test_rows_may_be_lost_again_and_again(store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock) -> None:
    evaluation = begin(store, 10)
    dispatcher.publish(evaluation)
    for _ in range(3):
        assert covered(lost_again(store, dispatcher, queue, clock, evaluation)) == Counter(range(10))


def test_rows_of_a_dispatcher_that_died_before_it_published_are_found(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin(store, 20)
    original = queue.publish

    def crash(*_: object, **__: object) -> int:
        raise BrokerError("gone")

    queue.publish = crash  # type: ignore[method-assign]
    with pytest.raises(BrokerError):
        dispatcher.publish(evaluation)
    assert not queue.published
    queue.publish = original  # type: ignore[method-assign]
    assert covered(lost_again(store, dispatcher, queue, clock, evaluation)) == Counter(range(20))


def test_no_row_is_lost_while_messages_wait_or_rows_are_held(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin(store, 20)
    dispatcher.publish(evaluation)
    for _ in range(3):
        clock.now += DRAINED
        dispatcher.settle(evaluation)
    queue.take()
    holder = worker(store)
    hold(store, holder, evaluation, (0, 9), (10, 19))
    for _ in range(3):
        clock.now += DRAINED
        dispatcher.settle(evaluation)
    assert len(queue.published) == 2
    # Only rows that no process holds any more are lost, and the time counts from then on.
    clock.now += DRAINED
    hold(store, holder, evaluation, (0, 9))
    assert covered(lost_again(store, dispatcher, queue, clock, evaluation)) == Counter(range(10, 20))


def test_held_rows_are_distinguished_from_lost_ones_by_their_number(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = begin(store, 30)
    dispatcher.publish(evaluation)
    queue.take()
    finish(store, evaluation, 0, 14)
    holder = worker(store)
    # The broker has redelivered one of the messages.
    hold(store, holder, evaluation, (10, 19), (20, 29), (20, 29))
    read_from: list[int] = []
    original = type(store.rows).pending_ranges

    def spy(self: Rows, evaluation_id: int, size: int, *, first: int = 0, limit: int | None = None) -> object:
        read_from.append(first)
        return original(self, evaluation_id, size, first=first, limit=limit)

    monkeypatch.setattr(type(store.rows), "pending_ranges", spy)
    for _ in range(3):
        clock.now += DRAINED
        dispatcher.settle(evaluation)
    # Completed rows were not read again.
    assert set(read_from) == {30}
    hold(store, holder, evaluation, (20, 29))
    assert covered(lost_again(store, dispatcher, queue, clock, evaluation)) == Counter(range(15, 20))


def test_rows_that_are_not_read_yet_are_not_lost(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin(store, 10, complete=False)
    store.rows.set_total(evaluation.id, 50, complete=False, fingerprint=None)
    dispatcher.publish(evaluation)
    work(store, evaluation, queue.take())
    cursor = store.evaluations.published(evaluation.id)
    assert store.evaluations.by_uid(evaluation.uid).counts.pending == 40
    assert lost_again(store, dispatcher, queue, clock, evaluation) == []
    assert store.evaluations.published(evaluation.id) == cursor


def test_the_time_counts_anew_after_messages_have_waited(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin(store, 10)
    dispatcher.publish(evaluation)
    taken = queue.take()
    dispatcher.settle(evaluation)
    clock.now += DRAINED / 2
    # A worker process gave it back.
    queue.publish(taken, experiment="x", evaluation="eval_it")
    dispatcher.settle(evaluation)
    queue.take()
    clock.now += DRAINED / 2
    dispatcher.settle(evaluation)
    clock.now += DRAINED / 2
    dispatcher.settle(evaluation)
    assert len(queue.published) == 2


def test_only_one_of_two_dispatchers_publishes_lost_rows(store: Store, queue: FakeQueue, clock: Clock) -> None:
    evaluation = begin(store, 20)
    first, second = (Dispatcher(store, queue, DispatchOptions(rows_per_task=10), clock=clock) for _ in range(2))
    first.publish(evaluation)
    queue.take()
    for dispatcher in (first, second):
        dispatcher.settle(evaluation)
    clock.now += DRAINED
    first.settle(evaluation)
    # A worker process takes them at once, and has not reported yet that it holds them.
    queue.take()
    second.settle(evaluation)
    assert covered(queue.published) == Counter([*range(20), *range(20)])


def test_lost_rows_race(store: Store, queue: FakeQueue, clock: Clock) -> None:
    evaluation = begin(store, 20)
    dispatchers = [Dispatcher(store, queue, DispatchOptions(rows_per_task=2), clock=clock) for _ in range(4)]
    dispatchers[0].publish(evaluation)
    queue.take()
    for dispatcher in dispatchers:
        dispatcher.settle(evaluation)
    clock.now += DRAINED
    start = threading.Barrier(4)

    def run(dispatcher: Dispatcher) -> None:
        start.wait(60)
        dispatcher.settle(evaluation)

    threads = [threading.Thread(target=run, args=(dispatcher,)) for dispatcher in dispatchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert covered(queue.published) == Counter([*range(20), *range(20)])
