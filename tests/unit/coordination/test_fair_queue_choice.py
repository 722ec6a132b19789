"""Each experiment gets a fair queue of its own, and none delays another."""

from __future__ import annotations

from collections import Counter

import pytest

from doteval.broker.fair_queues import Priority, fair_queues_of
from doteval.coordination import dispatcher as dispatcher_module
from doteval.coordination.dispatcher import Dispatcher
from doteval.core.experiments import Evaluation, EvaluationSpec
from doteval.store import Store
from tests.support.clock import Clock
from tests.support.dispatcher import DRAINED, begin, begin_on, rows, spans, worker
from tests.support.fake_queue import FakeQueue


def fair_queues_used(queue: FakeQueue, evaluation: Evaluation) -> set[int]:
    return queue.fair_queues_of(evaluation.uid)


def test_experiments_get_fair_queues_of_their_own_that_their_evaluations_share(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue
) -> None:
    large, small = begin(store, 30, name="large"), begin(store, 30, name="small")
    other = store.evaluations.begin(large.experiment, EvaluationSpec("evals/eval_it.py", "eval_other", ("x",)))
    store.rows.add(other.id, rows(10))
    store.rows.set_total(other.id, 10, complete=True, fingerprint=None)
    for evaluation in (large, other, small):
        dispatcher.restart(evaluation)
        dispatcher.publish(evaluation)
    assert fair_queues_used(queue, large) == fair_queues_used(queue, other)
    assert fair_queues_used(queue, small).isdisjoint(fair_queues_used(queue, large))


def test_a_full_fair_queue_delays_no_other_experiment(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "MOST_QUEUED", 3)
    large, small = begin(store, 100, name="large"), begin(store, 30, name="small")
    dispatcher.restart(large)
    assert dispatcher.publish(large) == 3
    dispatcher.restart(small)
    assert dispatcher.publish(small) == 3


def test_lost_rows_are_found_while_another_experiment_keeps_its_fair_queue_full(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    large, small = begin(store, 100, name="large"), begin(store, 20, name="small")
    for evaluation in (small, large):
        dispatcher.restart(evaluation)
    dispatcher.publish(small)
    # Here they are lost.
    queue.take()
    dispatcher.publish(large)
    worker(store)
    before = len(queue.published)
    dispatcher.settle(small)
    clock.now += DRAINED
    dispatcher.settle(small)
    assert spans(queue.published[before:]) == [(0, 9), (10, 19)]


@pytest.mark.parametrize("priority", list(Priority))
def test_a_priority_has_fair_queues_of_its_own_and_is_kept(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, priority: Priority
) -> None:
    evaluation = begin(store, 20)
    dispatcher.restart(evaluation, priority=priority)
    dispatcher.publish(evaluation)
    queue.take()
    dispatcher.restart(evaluation)
    assert dispatcher.publish(evaluation) == 2
    assert fair_queues_used(queue, evaluation) <= set(fair_queues_of(priority))


def test_when_all_fair_queues_are_taken_the_one_with_the_fewest_experiments_is_chosen(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue
) -> None:
    fair_queues = fair_queues_of(Priority.NORMAL)
    evaluations = [begin(store, 10, name=str(number)) for number in range(len(fair_queues) + 1)]
    for evaluation in evaluations:
        dispatcher.restart(evaluation)
        dispatcher.publish(evaluation)
    used = Counter(fair_queue for evaluation in evaluations for fair_queue in fair_queues_used(queue, evaluation))
    assert set(used) == set(fair_queues)
    assert max(used.values()) == 2


def test_experiments_have_fair_queues_of_their_queue(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    """Experiments on other queues take no fair queue away."""
    evaluations = [begin_on(store, name, name=f"x{number}") for number, name in enumerate(["a", "b", "a"])]
    for evaluation in evaluations:
        dispatcher.restart(evaluation)
        dispatcher.publish(evaluation)
    first, second, third = (queue.fair_queues_of(evaluation.uid) for evaluation in evaluations)
    assert first == second
    assert third.isdisjoint(first)
