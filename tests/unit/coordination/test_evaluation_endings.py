"""Evaluations end when their rows are done, or when no worker process can load their fixtures."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import Mock

import pytest

from doteval.coordination.dispatcher import Dispatcher
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment
from doteval.core.results import Outcome, RowStatus
from doteval.core.states import EvaluationEnd, LoadFailureKind
from doteval.store import EVALUATION_FILES, NewResult, Store
from doteval.submission.follow import Following
from doteval.supervision.supervisor import Supervisor
from tests.support.dispatcher import begin, begin_on, fail_load, finish, rows, worker
from tests.support.fake_queue import FakeQueue


class NoObserver:
    """Ignores what is reported."""

    def began(self, experiment: Experiment, evaluations: Sequence[Evaluation], workers: int) -> None: ...
    def moved(self, evaluations: Sequence[Evaluation]) -> None: ...
    def ended(self, store: Store, evaluations: Sequence[Evaluation]) -> None: ...
    def note(self, line: str) -> None: ...


def test_an_evaluation_is_completed_when_its_whole_dataset_is_done(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue
) -> None:
    evaluation = begin(store, 10, complete=False)
    finish(store, evaluation, 0, 9)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    store.rows.set_total(evaluation.id, 10, complete=True, fingerprint=None)
    settled = dispatcher.settle(evaluation)
    assert settled.status is EvaluationStatus.COMPLETED
    assert settled.finished_at is not None
    assert not queue.published


def test_without_pending_rows_none_are_searched_for(
    store: Store, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The search would read all completed rows, for every chunk of a dataset that is read again.
    evaluation = begin(store, 20, complete=False)
    finish(store, evaluation, 0, 19)
    following = Following(store, dispatcher, [evaluation], NoObserver())

    def look(*_: object, **__: object) -> None:
        raise AssertionError("it looked for pending rows")

    monkeypatch.setattr(type(store.rows), "pending_ranges", look)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    assert following.publish(evaluation)


def test_worker_processes_are_asked_to_leave_before_the_end_is_reported(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 10)
    finish(store, evaluation, 0, 9)
    supervisor = Mock(spec=Supervisor)
    supervisor.hopeless_start.return_value = None
    reported: list[tuple[Store, EvaluationStatus, int]] = []

    class Observer(NoObserver):
        def ended(self, store: Store, evaluations: Sequence[Evaluation]) -> None:
            supervisor.drain.assert_called_once_with()
            supervisor.stop.assert_not_called()
            reported.extend((store, each.status, each.counts.done) for each in evaluations)

    Following(store, dispatcher, [evaluation], Observer(), supervisor).to_the_end()
    assert reported == [(store, EvaluationStatus.COMPLETED, 10)]


def test_an_evaluation_that_has_ended_is_not_changed(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 10)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.CANCELLED, "by hand")
    settled = dispatcher.settle(evaluation)
    assert (settled.status, settled.reason) == (EvaluationStatus.CANCELLED, "by hand")
    assert not queue.published


def test_an_evaluation_that_no_live_worker_can_load_fails(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 10)
    first, second = worker(store, "a"), worker(store, "b")
    fail_load(store, first, evaluation)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    fail_load(store, second, evaluation)
    settled = dispatcher.settle(evaluation)
    assert settled.status is EvaluationStatus.FAILED
    assert settled.reason == "model failed on every worker process: RuntimeError: no GPU"
    assert settled.end_cause is EvaluationEnd.FIXTURES_FAILED


def test_a_worker_that_loads_or_has_left_or_listens_elsewhere_decides_nothing(
    store: Store, dispatcher: Dispatcher
) -> None:
    evaluation = begin(store, 10)
    failing = worker(store, "a")
    fail_load(store, failing, evaluation)
    loading = worker(store, "b", state="loading")
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    store.workers.end(loading, reason="was killed")
    store.workers.end(failing, reason="left")
    # No worker lives: the next one may be able to load them.
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    worker(store, "c", queues=("another",))
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    fail_load(store, worker(store, "d"), evaluation)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.FAILED


def test_an_evaluation_whose_fixtures_skip_everywhere_is_completed_as_skipped(
    store: Store, dispatcher: Dispatcher
) -> None:
    evaluation = begin(store, 10)
    fail_load(store, worker(store), evaluation, "no GPU here", LoadFailureKind.SKIPPED)
    settled = dispatcher.settle(evaluation)
    assert (settled.status, settled.reason) == (EvaluationStatus.COMPLETED, "skipped: no GPU here")
    assert settled.end_cause is EvaluationEnd.SKIPPED


def test_processes_that_load_and_fail_alternately_do_not_go_on_for_ever(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 10)
    first, second = worker(store, "a"), worker(store, "b")
    fail_load(store, first, evaluation)
    store.workers.end(first, reason="left")
    worker(store, "a", state="loading")
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    # The second process fails while the successor of the first loads what the first could not load.
    fail_load(store, second, evaluation)
    newcomer = worker(store, "c", state="loading")
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    store.workers.end(newcomer, reason="left")
    assert dispatcher.settle(evaluation).status is EvaluationStatus.FAILED


def test_a_ready_process_after_a_failed_one_has_a_second_chance_and_its_results_count(
    store: Store, dispatcher: Dispatcher
) -> None:
    evaluation = begin(store, 10)

    def fail_and_leave() -> int:
        failing = worker(store, "a")
        fail_load(store, failing, evaluation)
        store.workers.end(failing, reason="left")
        return worker(store, "a")

    following = fail_and_leave()
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    store.workers.end(following, reason="left")
    following = fail_and_leave()
    store.results.write([NewResult(evaluation.id, rows(1)[0], Outcome(RowStatus.DONE, 0.0, 0.0))], following)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    store.workers.end(following, reason="left")
    worker(store, "a")
    assert dispatcher.settle(evaluation).status is EvaluationStatus.FAILED


def test_a_process_after_one_with_other_files_may_have_the_right_ones(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 10)
    for expected in (EvaluationStatus.RUNNING, EvaluationStatus.FAILED):
        refusing = worker(store, "a")
        store.loads.begin(
            refusing,
            EVALUATION_FILES,
            "",
            0.0,
            error="the files differ",
            failure=LoadFailureKind.OTHER_CODE,
            evaluation_id=evaluation.id,
        )
        store.workers.end(refusing, reason="left")
        following = worker(store, "a", state="loading")
        assert dispatcher.settle(evaluation).status is expected
        store.workers.end(following, reason="left")


def test_a_new_submission_may_have_mended_what_failed(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 10)
    fail_load(store, worker(store), evaluation)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.FAILED
    begin(store, 10)
    assert store.loads.failures(evaluation.id) == []
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    fail_load(store, worker(store, "b"), evaluation)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.FAILED)
    assert len(store.loads.failures(evaluation.id)) == 1
    store.evaluations.set_status(evaluation.id, EvaluationStatus.RUNNING)
    assert store.loads.failures(evaluation.id) == []


def test_only_workers_of_its_queue_decide_that_no_worker_can_load(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin_on(store, "gpu")
    worker(store, "other", queues=("doteval",))
    fail_load(store, worker(store, "gpu", queues=("gpu",)), evaluation)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.FAILED


def test_conclude_completes_and_publishes_nothing(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin_on(store, "gpu")
    assert dispatcher.conclude(evaluation).status is EvaluationStatus.RUNNING
    finish(store, evaluation, 0, 9)
    assert dispatcher.conclude(evaluation).status is EvaluationStatus.COMPLETED
    assert queue.published == []
