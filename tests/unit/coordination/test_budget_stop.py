"""An evaluation stops at its budget: nothing more is published, rows in flight end, and the reason is stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from doteval.coordination.dispatcher import Dispatcher
from doteval.core.budgets import Budget
from doteval.core.experiments import Evaluation, EvaluationSpec, EvaluationStatus
from doteval.core.results import Outcome, Row, RowStatus, Usage
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd
from doteval.store import HeldRange, NewResult, Store, WorkerInfo
from doteval.submission.status import experiment_status
from tests.support.clock import Clock
from tests.support.fake_queue import FakeQueue

REASON = "the budget is used up: 10 of 10 requests"


def begin(store: Store, budget: Budget, *, name: str = "eval_it", complete: bool = True) -> Evaluation:
    """An evaluation of 30 rows."""
    spec = EvaluationSpec("eval_it.py", name, ("x",), config=RunConfig(submitted=True).with_budget(budget))
    evaluation = store.evaluations.begin(store.experiments.begin("x"), spec)
    store.rows.add(evaluation.id, [Row(index, f"k{index}", {"x": index}) for index in range(30)])
    store.rows.set_total(evaluation.id, 30, complete=complete, fingerprint=None)
    return store.evaluations.by_uid(evaluation.uid)


def finish(store: Store, evaluation: Evaluation, first: int, last: int, cost: float | None = None) -> None:
    """Store results of one request each."""
    used = Usage("m", 1, 1, prompt_tokens=100, completion_tokens=10, cost=cost)
    outcome = Outcome(RowStatus.DONE, 0.0, 0.0, usage=(used,))
    pending = store.rows.pending(evaluation.id, first, last)
    store.results.write([NewResult(evaluation.id, row, outcome) for row in pending], None)


def stop(dispatcher: Dispatcher, clock: Clock, evaluation: Evaluation) -> Evaluation:
    dispatcher.settle(evaluation)
    clock.now += 1
    return dispatcher.settle(evaluation)


def test_nothing_is_published_once_the_experiment_has_spent_its_budget(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation, other = begin(store, Budget(10)), begin(store, Budget(), name="eval_other")
    # Spent by another evaluation of the same experiment, which has no budget.
    finish(store, other, 0, 9)
    assert dispatcher.publish(evaluation) == 0
    stopped = stop(dispatcher, clock, evaluation)
    assert (stopped.status, stopped.reason) == (EvaluationStatus.CANCELLED, REASON)
    assert stopped.end_cause is EvaluationEnd.BUDGET_USED_UP
    assert stopped.stopped_at_budget
    assert queue.published == []
    assert dispatcher.publish(other) == 2


@pytest.mark.parametrize("budget", [Budget(11), Budget(tokens=1101), Budget(cost=0.51), Budget()])
def test_rows_are_published_while_some_budget_is_left(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock, budget: Budget
) -> None:
    evaluation = begin(store, budget)
    finish(store, evaluation, 0, 9, cost=0.05)
    assert stop(dispatcher, clock, evaluation).status is EvaluationStatus.RUNNING
    assert len(queue.published) == 2


def hold(store: Store, worker: int, evaluation: Evaluation, *ranges: tuple[int, int]) -> None:
    held = [HeldRange(evaluation.uid, first, last) for first, last in ranges]
    store.workers.beat(worker, state="ready", holding=held)


def test_it_ends_when_workers_report_that_their_rows_in_flight_have_ended(
    store: Store, dispatcher: Dispatcher, clock: Clock
) -> None:
    evaluation = begin(store, Budget(10))
    worker = store.workers.begin(WorkerInfo("w", "host", 1, ("doteval",)))
    finish(store, evaluation, 0, 9)
    hold(store, worker, evaluation)
    # A report from before the budget was used up does not count: the clock has not moved.
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    hold(store, worker, evaluation, (10, 19))
    clock.now += 1
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    finish(store, evaluation, 10, 12)
    hold(store, worker, evaluation)
    stopped = dispatcher.settle(evaluation)
    assert stopped.reason == "the budget is used up: 13 of 10 requests"
    assert stopped.counts.pending == 17


def test_rows_in_flight_may_complete_the_evaluation(store: Store, dispatcher: Dispatcher, clock: Clock) -> None:
    evaluation = begin(store, Budget(25))
    finish(store, evaluation, 0, 25)
    worker = store.workers.begin(WorkerInfo("w", "host", 1, ("doteval",)))
    hold(store, worker, evaluation, (26, 29))
    assert stop(dispatcher, clock, evaluation).status is EvaluationStatus.RUNNING
    finish(store, evaluation, 26, 29)
    assert stop(dispatcher, clock, evaluation).status is EvaluationStatus.COMPLETED


def test_it_ends_only_when_its_dataset_is_read(store: Store, dispatcher: Dispatcher, clock: Clock) -> None:
    evaluation = begin(store, Budget(10), complete=False)
    finish(store, evaluation, 0, 9)
    assert stop(dispatcher, clock, evaluation).status is EvaluationStatus.RUNNING
    store.rows.set_total(evaluation.id, 30, complete=True, fingerprint=None)
    assert stop(dispatcher, clock, evaluation).status is EvaluationStatus.CANCELLED


def test_with_a_larger_budget_it_goes_on(store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock) -> None:
    evaluation = begin(store, Budget(10))
    finish(store, evaluation, 0, 9)
    assert stop(dispatcher, clock, evaluation).status is EvaluationStatus.CANCELLED
    store.evaluations.reconfigure(evaluation.id, lambda config: config.with_budget(Budget(20)))
    store.evaluations.set_status(evaluation.id, EvaluationStatus.RUNNING)
    again = stop(dispatcher, clock, evaluation)
    assert (again.status, again.config.budget) == (EvaluationStatus.RUNNING, Budget(20))
    assert len(queue.published) == 2


def test_a_model_without_a_price_is_named(store: Store, dispatcher: Dispatcher, clock: Clock) -> None:
    evaluation = begin(store, Budget(cost=5.0))
    finish(store, evaluation, 0, 0)
    stopped = stop(dispatcher, clock, evaluation)
    assert stopped.reason == "the budget of $5.00 cannot be kept: no price is known for m"


@pytest.mark.parametrize(
    ("end", "plan"),
    [
        (
            lambda store, evaluation: None,
            (
                "the experiment has spent 10 of 10 requests",
                f"no further row begins, since {REASON}; rows in flight end",
            ),
        ),
        (
            lambda store, evaluation: store.evaluations.set_status(
                evaluation.id, EvaluationStatus.CANCELLED, REASON, end_cause=EvaluationEnd.BUDGET_USED_UP
            ),
            (
                "the experiment has spent 10 of 10 requests",
                "20 rows pending: submit again with a larger budget to go on",
            ),
        ),
    ],
    ids=["rows in flight", "stopped"],
)
def test_status_shows_the_spent_amounts_and_what_comes_next(
    store: Store, end: Callable[[Store, Evaluation], None], plan: tuple[str, ...]
) -> None:
    evaluation = begin(store, Budget(10))
    finish(store, evaluation, 0, 9)
    end(store, evaluation)
    (found,) = experiment_status(store, evaluation.experiment).evaluations
    assert found.plan == plan
