"""Evaluations end when their rows are done, or when no worker process can load their fixtures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import Mock

import pytest

from doteval.coordination.dispatcher import Dispatcher
from doteval.coordination.endings import end_running, end_unrun
from doteval.coordination.load_verdict import Prospect
from doteval.core.experiments import Counts, Ending, Evaluation, EvaluationStatus, Experiment
from doteval.core.results import Outcome, RowError, RowStatus
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd, LoadFailureKind
from doteval.store import EVALUATION_FILES, NewResult, Store
from doteval.submission.follow import Following
from doteval.supervision.supervisor import Supervisor
from tests.support.dispatcher import SPEC, begin, begin_on, begin_with, covered, fail_load, finish, rows, worker
from tests.support.fake_queue import FakeQueue


class NoObserver:
    """Ignores what is reported."""

    def began(self, experiment: Experiment, evaluations: Sequence[Evaluation], workers: int) -> None: ...
    def moved(self, evaluations: Sequence[Evaluation], batches: object = None) -> None: ...
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


@pytest.mark.parametrize(
    ("kind", "status", "cause"),
    [
        (LoadFailureKind.SKIPPED, EvaluationStatus.SKIPPED, EvaluationEnd.SKIPPED),
        (LoadFailureKind.EXPECTED, EvaluationStatus.FAILED, EvaluationEnd.EXPECTED_FAILURE),
    ],
)
def test_an_evaluation_ends_as_its_fixtures_say_on_every_worker_process(
    store: Store, dispatcher: Dispatcher, kind: LoadFailureKind, status: EvaluationStatus, cause: EvaluationEnd
) -> None:
    evaluation = begin(store, 10)
    fail_load(store, worker(store), evaluation, "no GPU here", kind)
    settled = dispatcher.settle(evaluation)
    assert (settled.status, settled.end_cause, settled.reason) == (status, cause, "no GPU here")
    assert settled.counts == Counts(10)


def skip(store: Store, evaluation: Evaluation, first: int, last: int) -> None:
    """Store skipped rows, each with a reason of its own."""
    results = [
        NewResult(
            evaluation.id,
            row,
            Outcome(RowStatus.SKIPPED, 0.0, 0.0, error=RowError("Skipped", f"no answer to {row.index}")),
        )
        for row in store.rows.pending(evaluation.id, first, last)
    ]
    store.results.write(results, None)


def test_an_evaluation_whose_rows_were_all_skipped_is_skipped(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 3)
    skip(store, evaluation, 1, 2)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    skip(store, evaluation, 0, 0)
    settled = dispatcher.settle(evaluation)
    assert (settled.status, settled.end_cause) == (EvaluationStatus.SKIPPED, EvaluationEnd.SKIPPED)
    assert settled.reason == "all 3 rows were skipped: no answer to 0"
    # They run again when the evaluation is begun again.
    assert store.rows.retry_skipped(evaluation.id) == 3
    again = begin(store, 3)
    assert again.counts == Counts(3)
    finish(store, evaluation, 0, 2)
    settled = dispatcher.settle(evaluation)
    assert (settled.status, settled.reason) == (EvaluationStatus.COMPLETED, None)
    assert settled.counts == Counts(3, done=3)


def test_an_evaluation_of_which_some_rows_were_skipped_has_completed(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 3)
    skip(store, evaluation, 0, 1)
    finish(store, evaluation, 2, 2)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.COMPLETED
    assert store.rows.retry_failed(evaluation.id) == 0


def test_an_evaluation_that_a_strict_xfail_mark_expects_to_fail_must_not_run_to_its_end(
    store: Store, dispatcher: Dispatcher
) -> None:
    evaluation = begin_with(store, 2, RunConfig(strict_xfail="a weak model"))
    finish(store, evaluation, 0, 1)
    settled = dispatcher.settle(evaluation)
    assert (settled.status, settled.end_cause) == (EvaluationStatus.FAILED, EvaluationEnd.PASSED_UNEXPECTEDLY)
    assert settled.reason == "[XPASS(strict)] a weak model"


UNRUN = Ending(EvaluationStatus.SKIPPED, EvaluationEnd.SKIPPED, "not today")


def test_an_evaluation_that_is_not_run_has_no_rows(store: Store) -> None:
    experiment = store.experiments.begin("x")
    ended = end_unrun(store, experiment, SPEC, UNRUN)
    assert (ended.status, ended.reason, ended.counts) == (EvaluationStatus.SKIPPED, "not today", Counts(0))
    assert end_unrun(store, experiment, SPEC, replace(UNRUN, reason="nor tomorrow")).reason == "nor tomorrow"


def test_an_evaluation_that_is_not_run_again_keeps_its_results(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 3)
    finish(store, evaluation, 0, 2)
    dispatcher.settle(evaluation)
    kept = end_unrun(store, evaluation.experiment, SPEC, UNRUN)
    assert (kept.status, kept.counts) == (EvaluationStatus.COMPLETED, Counts(3, done=3))


def test_an_error_does_not_end_an_evaluation_whose_rows_all_have_a_result(store: Store) -> None:
    refusal = Ending(EvaluationStatus.FAILED, EvaluationEnd.DATASET_REFUSED, "no such file")
    evaluation = begin(store, 3)
    finish(store, evaluation, 0, 1)
    end_running(store, evaluation, refusal)
    assert store.evaluations.by_uid(evaluation.uid).reason == "no such file"
    begin(store, 3)
    finish(store, evaluation, 2, 2)
    end_running(store, evaluation, refusal)
    assert store.evaluations.by_uid(evaluation.uid).status is EvaluationStatus.COMPLETED


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


def refuse(store: Store, worker_id: int, evaluation: Evaluation, kind: LoadFailureKind) -> None:
    fail_load(store, worker_id, evaluation, "eval_it.py differs", kind)


def test_an_evaluation_waits_for_processes_that_will_read_the_changed_file(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue
) -> None:
    evaluation = begin(store, 10)
    first, second = worker(store, "a"), worker(store, "b")
    refuse(store, first, evaluation, LoadFailureKind.STALE_CODE)
    assert dispatcher.prospect(evaluation) is Prospect.GOOD
    refuse(store, second, evaluation, LoadFailureKind.OTHER_CODE)
    assert dispatcher.prospect(evaluation) is Prospect.AFTER_RELOAD
    # No row task is published that everybody would refuse.
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    assert queue.published == []
    store.workers.end(first, reason="reloaded")
    worker(store, "a")
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    assert covered(queue.take()) == dict.fromkeys(range(10), 1)


def test_the_last_refusal_of_a_process_counts(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 10)
    only = worker(store, "a")
    # Its file was brought to the machine after the first refusal.
    refuse(store, only, evaluation, LoadFailureKind.OTHER_CODE)
    refuse(store, only, evaluation, LoadFailureKind.STALE_CODE)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    # Its successor has other files all the same.
    store.workers.end(only, reason="reloaded")
    refuse(store, worker(store, "a"), evaluation, LoadFailureKind.OTHER_CODE)
    ended = dispatcher.settle(evaluation)
    assert (ended.status, ended.reason) == (EvaluationStatus.FAILED, "no worker process can run it: eval_it.py differs")


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
