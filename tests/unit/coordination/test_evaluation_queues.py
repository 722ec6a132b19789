"""Row tasks go to the queue of their evaluation, also when they are published again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.store import Store
from tests.support.clock import Clock
from tests.support.dispatcher import DRAINED, begin_on, covered, hold, worker
from tests.support.fake_queue import FakeQueue


def test_row_tasks_go_to_the_queue_of_their_evaluation(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    gpu, other = begin_on(store, "gpu"), begin_on(store, None, path="eval_other.py")
    for evaluation in (gpu, other):
        dispatcher.restart(evaluation)
        dispatcher.publish(evaluation)
    assert queue.queues_of(gpu.uid) == {"gpu"}
    assert queue.queues_of(other.uid) == {"doteval"}


def test_the_queue_that_a_submitter_gives_wins(store: Store, queue: FakeQueue) -> None:
    evaluation = begin_on(store, "gpu")
    Dispatcher(store, queue, DispatchOptions(queues={evaluation.uid: "mine"})).publish(evaluation)
    assert queue.queues_of(evaluation.uid) == {"mine"}


def test_lost_rows_go_to_the_same_queue_again_whatever_waits_elsewhere(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    gpu, other = begin_on(store, "gpu"), begin_on(store, "doteval", path="eval_other.py")
    dispatcher.publish(gpu)
    queue.take()
    dispatcher.publish(other)
    dispatcher.settle(gpu)
    clock.now += DRAINED
    dispatcher.settle(gpu)
    assert queue.queues_of(gpu.uid) == {"gpu"}
    assert covered(queue.take("gpu")) == Counter(range(10))


def test_rows_held_from_the_time_on_another_queue_are_not_published(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin_on(store, "gpu", 20)
    dispatcher.publish(evaluation)
    holder = worker(store, queues=("gpu",))
    store.evaluations.reconfigure(evaluation.id, lambda config: replace(config, queue="other"))
    moved = store.evaluations.by_uid(evaluation.uid)
    assert moved.queue == "other"
    queue.take()
    for _ in range(2):
        hold(store, holder, moved, (0, 9))
        dispatcher.settle(moved)
        clock.now += DRAINED
    assert queue.queues_of(evaluation.uid) == {"other"}
    assert covered(queue.take("other")) == Counter(range(10, 20))
