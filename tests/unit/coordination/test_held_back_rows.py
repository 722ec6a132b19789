"""Rows that are held back: only those of a sample are published, by whichever process, until they are released."""

from __future__ import annotations

from collections import Counter

from doteval.coordination.claims import nobody_runs
from doteval.coordination.dispatcher import Dispatcher
from doteval.coordination.publish_cursor import hold_back
from doteval.core.experiments import EvaluationStatus
from doteval.core.run_config import RunConfig
from doteval.store import Store
from tests.support.clock import Clock
from tests.support.dispatcher import DRAINED, begin, begin_with, covered, finish, hold, worker
from tests.support.fake_queue import FakeQueue

SAMPLE = (3, 11, 12, 29)


def test_only_the_sample_is_published_until_the_rows_are_released(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin(store, 30)
    dispatcher.restart(evaluation, hold_back=True)
    other = Dispatcher(store, queue, clock=clock)
    other.settle(evaluation)
    assert not queue.published
    dispatcher.publish_sample(evaluation, SAMPLE)
    assert covered(queue.take()) == Counter(SAMPLE)
    for index in SAMPLE:
        finish(store, evaluation, index, index)
    for each in (dispatcher, other):
        for _ in range(3):
            each.settle(evaluation)
            clock.now += DRAINED
    assert not queue.take()
    dispatcher.release(evaluation)
    other.settle(evaluation)
    assert covered(queue.take()) == Counter(set(range(30)) - set(SAMPLE))


def test_lost_rows_of_the_sample_are_published_again_by_the_process_that_drew_it(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin(store, 30)
    held_by = worker(store)
    dispatcher.restart(evaluation, hold_back=True)
    dispatcher.publish_sample(evaluation, SAMPLE)
    queue.take()
    finish(store, evaluation, 11, 11)
    hold(store, held_by, evaluation, (3, 3))
    dispatcher.settle(evaluation)
    clock.now += DRAINED
    assert not queue.take()
    dispatcher.settle(evaluation)
    assert covered(queue.take()) == Counter([12, 29])


def test_a_submission_that_was_killed_is_left_to_nobody_and_begun_anew(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin_with(store, 30, RunConfig(submitted=True, queue="doteval"))
    worker(store)
    assert not nobody_runs(store, evaluation)
    dispatcher.restart(evaluation, hold_back=True)
    assert nobody_runs(store, evaluation)
    dispatcher.publish_sample(evaluation, SAMPLE)
    dispatcher.restart(evaluation)
    assert not nobody_runs(store, evaluation)
    # The rows of its sample may be on their way, so that nothing is published until the queue has drained.
    dispatcher.settle(evaluation)
    assert covered(queue.take()) == Counter(SAMPLE)
    dispatcher.settle(evaluation)
    clock.now += DRAINED
    dispatcher.settle(evaluation)
    assert covered(queue.take()) == Counter(range(30))


def test_rows_of_an_experiment_that_goes_on_are_held_back_too(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue
) -> None:
    evaluation = begin(store, 30)
    dispatcher.publish(evaluation)
    queue.take()
    finish(store, evaluation, 0, 9)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.CANCELLED)
    hold_back(store, evaluation)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.RUNNING)
    dispatcher.settle(evaluation)
    dispatcher.restart(evaluation, hold_back=True)
    dispatcher.settle(evaluation)
    assert not queue.take()
    dispatcher.release(evaluation)
    dispatcher.settle(evaluation)
    assert covered(queue.take()) == Counter(range(10, 30))
