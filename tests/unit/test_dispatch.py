"""The dispatcher on a real store: nothing is published twice, nothing is lost, and evaluations end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from doteval import dispatch
from doteval.dispatch import Dispatcher, DispatchOptions
from doteval.errors import BrokerError
from doteval.experiments import QUEUE, Evaluation, EvaluationSpec, EvaluationStatus, Experiment
from doteval.following import Following
from doteval.queue.lanes import Priority, lanes_of
from doteval.queue.row_task import RowTask
from doteval.results import Outcome, Row, RowStatus, Score
from doteval.store import CODE, HeldRange, NewResult, Store, WorkerInfo
from tests.unit.clock import Clock
from tests.unit.fake_queue import FakeQueue

SPEC = EvaluationSpec("evals/eval_it.py", "eval_it", ("x",), {"evals/eval_it.py": "1"})
# What a dispatcher waits until it takes rows for lost, and a bit.
DRAINED = 3.5


class NoWatcher:
    """Does not look."""

    def began(self, experiment: Experiment, evaluations: Sequence[Evaluation], workers: int) -> None: ...
    def moved(self, evaluations: Sequence[Evaluation]) -> None: ...
    def note(self, line: str) -> None: ...


def rows(count: int, first: int = 0) -> list[Row]:
    return [Row(index, f"k{index}", {"x": index}) for index in range(first, first + count)]


def begin(store: Store, count: int, *, name: str = "x", complete: bool = True) -> Evaluation:
    evaluation = store.evaluations.begin(store.experiments.begin(name), SPEC)
    store.rows.add(evaluation.id, rows(count))
    store.rows.set_total(evaluation.id, count, complete=complete, fingerprint=None)
    return store.evaluations.by_uid(evaluation.uid)


def finish(store: Store, evaluation: Evaluation, first: int, last: int, *, seconds: float = 0.0) -> None:
    """Store results as a worker process does; `seconds` is what each row took."""
    outcome = Outcome(RowStatus.DONE, 0.0, seconds, (Score("ok", True, ["accuracy"]),))
    store.results.write(
        [NewResult(evaluation.id, row, outcome) for row in store.rows.pending(evaluation.id, first, last)], None
    )


def work(store: Store, evaluation: Evaluation, tasks: list[RowTask]) -> None:
    for task in tasks:
        finish(store, evaluation, task.first, task.last)


def worker(
    store: Store,
    name: str = "w",
    *,
    queues: tuple[str, ...] = ("doteval",),
    state: str = "ready",
    concurrency: int = 0,
) -> int:
    worker_id = store.workers.begin(WorkerInfo(name, "host", 1, queues, concurrency))
    store.workers.beat(worker_id, state=state, holding=[])
    return worker_id


def hold(store: Store, worker_id: int, evaluation: Evaluation, *ranges: tuple[int, int]) -> None:
    store.workers.beat(
        worker_id, state="ready", holding=[HeldRange(evaluation.uid, first, last) for first, last in ranges]
    )


def spans(tasks: list[RowTask]) -> list[tuple[int, int]]:
    return [(task.first, task.last) for task in tasks]


def covered(tasks: list[RowTask]) -> Counter[int]:
    """How many row tasks hold each row."""
    return Counter(index for task in tasks for index in range(task.first, task.last + 1))


def fail_load(store: Store, worker_id: int, evaluation: Evaluation, error: str = "RuntimeError: no GPU") -> None:
    store.loads.begin(worker_id, "model", "", 0.0, error=error, evaluation_id=evaluation.id)


def test_pending_rows_become_row_tasks_of_the_told_size(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 25)
    assert dispatcher.publish(evaluation) == 3
    assert spans(queue.take()) == [(0, 9), (10, 19), (20, 24)]
    assert {task.evaluation_uid for task in queue.published} == {evaluation.uid}


def test_what_is_published_is_not_published_again(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
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


def test_rows_that_are_done_are_left_out(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 30)
    finish(store, evaluation, 0, 9)
    finish(store, evaluation, 25, 29)
    dispatcher.publish(evaluation)
    assert covered(queue.take()) == Counter(range(10, 25))


def test_the_size_is_chosen_so_that_every_slot_gets_several_tasks(store: Store, queue: FakeQueue) -> None:
    evaluation = begin(store, 400)
    Dispatcher(store, queue, DispatchOptions(slots=10)).publish(evaluation)
    assert len(queue.take()) == 40


@pytest.mark.parametrize(
    ("concurrency", "seconds", "expected"),
    [
        # A quarter of the rows that run at once.
        (100, 0.1, 25),
        # No more than keep a worker process busy for a moment.
        (200, 0.5, 20),
        # As many as without.
        (0, 0.1, 10),
        (100, 10.0, 10),
    ],
)
def test_rows_that_run_side_by_side_travel_together(
    store: Store, queue: FakeQueue, concurrency: int, seconds: float, expected: int
) -> None:
    evaluation = begin(store, 2_000)
    worker(store, "a", concurrency=concurrency)
    worker(store, "b", concurrency=concurrency * 2)
    finish(store, evaluation, 0, 9, seconds=seconds)
    Dispatcher(store, queue, DispatchOptions(slots=2)).publish(evaluation)
    sizes = {task.last - task.first + 1 for task in queue.take()[:-1]}
    assert sizes == {expected}


def test_rows_travel_in_small_groups_where_the_broker_sends_them_unasked(store: Store, queue: FakeQueue) -> None:
    queue.is_asked = False
    evaluation = begin(store, 2_000)
    worker(store, concurrency=100)
    finish(store, evaluation, 0, 9, seconds=0.1)
    Dispatcher(store, queue, DispatchOptions(slots=2)).publish(evaluation)
    assert {task.last - task.first + 1 for task in queue.take()} == {10}


def test_few_rows_travel_in_several_groups_for_each_worker_process(store: Store, queue: FakeQueue) -> None:
    evaluation = begin(store, 208)
    worker(store, concurrency=100)
    worker(store, concurrency=100)
    finish(store, evaluation, 0, 15, seconds=0.1)
    Dispatcher(store, queue, DispatchOptions(slots=200)).publish(evaluation)
    # An eighth of what each of them runs.
    assert {task.last - task.first + 1 for task in queue.take()[:-1]} == {13}


def test_the_queue_is_not_filled_beyond_its_bound(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MOST_QUEUED", 7)
    monkeypatch.setattr(dispatch, "_PUBLISHED_AT_ONCE", 3)
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
    monkeypatch.setattr(dispatch, "_PUBLISHED_AT_ONCE", 2)
    evaluation = begin(store, 200)
    start = threading.Barrier(4)
    published: list[int] = []

    def run() -> None:
        dispatcher = Dispatcher(store, queue, DispatchOptions(rows_per_task=3))
        start.wait(10)
        published.append(dispatcher.publish(evaluation))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(published) == len(queue.published) == 67
    assert covered(queue.published) == Counter(range(200))


def test_what_a_live_worker_holds_is_left_out(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 40)
    hold(store, worker(store, "a"), evaluation, (5, 7), (18, 21))
    hold(store, worker(store, "b"), evaluation, (0, 1), (39, 39))
    dispatcher.publish(evaluation)
    assert covered(queue.published) == Counter({*range(2, 5), *range(8, 18), *range(22, 39)})


def test_what_is_held_of_another_evaluation_or_by_one_that_left_is_not_left_out(
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


def test_lost_rows_are_found_though_the_last_rows_were_done_before(
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


def test_a_crash_between_cursor_and_publish_heals(
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


def test_nothing_is_taken_for_lost_while_something_waits_or_is_held(
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
    # Only what nobody holds any more is lost, and the time counts from then on.
    clock.now += DRAINED
    hold(store, holder, evaluation, (0, 9))
    assert covered(lost_again(store, dispatcher, queue, clock, evaluation)) == Counter(range(10, 20))


def test_the_time_counts_anew_when_something_waits_in_between(
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
    # A worker process takes them at once, and has not told yet that it holds them.
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
        start.wait(10)
        dispatcher.settle(evaluation)

    threads = [threading.Thread(target=run, args=(dispatcher,)) for dispatcher in dispatchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert covered(queue.published) == Counter([*range(20), *range(20)])


def test_restart_publishes_what_is_pending_unless_something_waits(
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


def test_where_nothing_is_pending_nothing_is_looked_for(
    store: Store, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would read all rows that are done, for every chunk of a dataset that is read again.
    evaluation = begin(store, 20, complete=False)
    finish(store, evaluation, 0, 19)
    following = Following(store, dispatcher, [evaluation], NoWatcher())

    def look(*_: object, **__: object) -> None:
        raise AssertionError("it looked for pending rows")

    monkeypatch.setattr(type(store.rows), "pending_ranges", look)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    assert following.publish(evaluation)


def test_an_evaluation_that_is_over_is_left_alone(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
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
    # Nobody lives: the next worker process may have what it takes.
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    worker(store, "c", queues=("another",))
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    fail_load(store, worker(store, "d"), evaluation)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.FAILED


def test_an_evaluation_whose_fixtures_skip_everywhere_is_completed_as_skipped(
    store: Store, dispatcher: Dispatcher
) -> None:
    evaluation = begin(store, 10)
    fail_load(store, worker(store), evaluation, "Skipped: no GPU here")
    settled = dispatcher.settle(evaluation)
    assert (settled.status, settled.reason) == (EvaluationStatus.COMPLETED, "skipped: no GPU here")


def test_those_that_take_turns_in_loading_and_failing_do_not_go_on_for_ever(
    store: Store, dispatcher: Dispatcher
) -> None:
    evaluation = begin(store, 10)
    first, second = worker(store, "a"), worker(store, "b")
    fail_load(store, first, evaluation)
    store.workers.end(first, reason="left")
    worker(store, "a", state="loading")
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    # The other one fails, while the one that follows the first loads what the first could not load.
    fail_load(store, second, evaluation)
    newcomer = worker(store, "c", state="loading")
    assert dispatcher.settle(evaluation).status is EvaluationStatus.RUNNING
    store.workers.end(newcomer, reason="left")
    assert dispatcher.settle(evaluation).status is EvaluationStatus.FAILED


def test_who_follows_a_failure_and_is_ready_has_a_second_chance_and_results_speak_for_it(
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


def test_who_follows_one_that_had_other_files_may_have_the_right_ones(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin(store, 10)
    for expected in (EvaluationStatus.RUNNING, EvaluationStatus.FAILED):
        refusing = worker(store, "a")
        store.loads.begin(refusing, CODE, "", 0.0, error="the files differ", evaluation_id=evaluation.id)
        store.workers.end(refusing, reason="left")
        following = worker(store, "a", state="loading")
        assert dispatcher.settle(evaluation).status is expected
        store.workers.end(following, reason="left")


def test_who_asks_again_may_have_mended_what_failed(store: Store, dispatcher: Dispatcher) -> None:
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


def test_a_broker_that_is_away_is_said(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin(store, 10)
    queue.unreachable = True
    with pytest.raises(BrokerError):
        dispatcher.settle(evaluation)
    queue.unreachable = False
    dispatcher.settle(evaluation)
    assert covered(queue.published) == Counter(range(10))


# Lanes: experiments side by side.


def lane_of(queue: FakeQueue, evaluation: Evaluation) -> set[int]:
    return queue.lanes_of(evaluation.uid)


def test_experiments_get_lanes_of_their_own_and_evaluations_of_one_share_it(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue
) -> None:
    large, small = begin(store, 30, name="large"), begin(store, 30, name="small")
    other = store.evaluations.begin(large.experiment, EvaluationSpec("evals/eval_it.py", "eval_other", ("x",)))
    store.rows.add(other.id, rows(10))
    store.rows.set_total(other.id, 10, complete=True, fingerprint=None)
    for evaluation in (large, other, small):
        dispatcher.restart(evaluation)
        dispatcher.publish(evaluation)
    assert lane_of(queue, large) == lane_of(queue, other)
    assert lane_of(queue, small).isdisjoint(lane_of(queue, large))


def test_a_full_lane_holds_no_other_experiment_back(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MOST_QUEUED", 3)
    large, small = begin(store, 100, name="large"), begin(store, 30, name="small")
    dispatcher.restart(large)
    assert dispatcher.publish(large) == 3
    dispatcher.restart(small)
    assert dispatcher.publish(small) == 3


def test_lost_rows_are_found_while_another_experiment_keeps_its_lane_full(
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
def test_a_priority_has_lanes_of_its_own_and_is_kept(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, priority: Priority
) -> None:
    evaluation = begin(store, 20)
    dispatcher.restart(evaluation, priority=priority)
    dispatcher.publish(evaluation)
    queue.take()
    dispatcher.restart(evaluation)
    assert dispatcher.publish(evaluation) == 2
    assert lane_of(queue, evaluation) <= set(lanes_of(priority))


def test_when_all_lanes_are_taken_the_one_with_the_fewest_experiments_is_chosen(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue
) -> None:
    lanes = lanes_of(Priority.NORMAL)
    evaluations = [begin(store, 10, name=str(number)) for number in range(len(lanes) + 1)]
    for evaluation in evaluations:
        dispatcher.restart(evaluation)
        dispatcher.publish(evaluation)
    used = Counter(lane for evaluation in evaluations for lane in lane_of(queue, evaluation))
    assert set(used) == set(lanes)
    assert max(used.values()) == 2


def test_until_results_tell_row_tasks_are_small_and_few(
    store: Store, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_PUBLISHED_AT_ONCE", 5)
    evaluation = begin(store, 1000)
    dispatcher = Dispatcher(store, queue, DispatchOptions(slots=1))
    assert dispatcher.publish(evaluation) == 5
    assert dispatcher.publish(evaluation) == 0
    assert spans(queue.take())[0] == (0, 9)
    for row in store.rows.pending(evaluation.id, 0, 9):
        store.results.write([NewResult(evaluation.id, row, Outcome(RowStatus.DONE, 0.0, 0.0625))], None)
    dispatcher.publish(store.evaluations.by_uid(evaluation.uid))
    # One second of rows that take a sixteenth of one.
    assert {task.last - task.first + 1 for task in queue.take()[1:-1]} == {16}


def begin_on(
    store: Store, queue: str | None, count: int = 10, *, name: str = "x", path: str = "eval_q.py"
) -> Evaluation:
    """An evaluation that was submitted to a queue."""
    metadata = {} if queue is None else {QUEUE: queue}
    spec = EvaluationSpec(path, "eval_it", ("x",), {}, metadata)
    evaluation = store.evaluations.begin(store.experiments.begin(name), spec)
    store.rows.add(evaluation.id, rows(count))
    store.rows.set_total(evaluation.id, count, complete=True, fingerprint=None)
    return store.evaluations.by_uid(evaluation.uid)


def test_row_tasks_go_to_the_queue_of_their_evaluation(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    gpu, other = begin_on(store, "gpu"), begin_on(store, None, path="eval_other.py")
    for evaluation in (gpu, other):
        dispatcher.restart(evaluation)
        dispatcher.publish(evaluation)
    assert queue.queues_of(gpu.uid) == {"gpu"}
    assert queue.queues_of(other.uid) == {"doteval"}


def test_a_submitter_knows_the_queue_better(store: Store, queue: FakeQueue) -> None:
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


def test_what_is_held_from_the_time_on_another_queue_is_left_out(
    store: Store, dispatcher: Dispatcher, queue: FakeQueue, clock: Clock
) -> None:
    evaluation = begin_on(store, "gpu", 20)
    dispatcher.publish(evaluation)
    holder = worker(store, queues=("gpu",))
    store.evaluations.describe(evaluation.id, {QUEUE: "other"})
    moved = store.evaluations.by_uid(evaluation.uid)
    assert moved.queue == "other"
    queue.take()
    for _ in range(2):
        hold(store, holder, moved, (0, 9))
        dispatcher.settle(moved)
        clock.now += DRAINED
    assert queue.queues_of(evaluation.uid) == {"other"}
    assert covered(queue.take("other")) == Counter(range(10, 20))


def test_only_workers_of_its_queue_decide_that_nobody_can_load(store: Store, dispatcher: Dispatcher) -> None:
    evaluation = begin_on(store, "gpu")
    worker(store, "other", queues=("doteval",))
    fail_load(store, worker(store, "gpu", queues=("gpu",)), evaluation)
    assert dispatcher.settle(evaluation).status is EvaluationStatus.FAILED


def test_experiments_are_on_lanes_of_their_queue(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    """What is on other queues takes no lane away."""
    evaluations = [begin_on(store, name, name=f"x{number}") for number, name in enumerate(["a", "b", "a"])]
    for evaluation in evaluations:
        dispatcher.restart(evaluation)
        dispatcher.publish(evaluation)
    first, second, third = (queue.lanes_of(evaluation.uid) for evaluation in evaluations)
    assert first == second
    assert third.isdisjoint(first)


def test_anybody_may_conclude_and_publishes_nothing(store: Store, dispatcher: Dispatcher, queue: FakeQueue) -> None:
    evaluation = begin_on(store, "gpu")
    assert dispatcher.conclude(evaluation).status is EvaluationStatus.RUNNING
    finish(store, evaluation, 0, 9)
    assert dispatcher.conclude(evaluation).status is EvaluationStatus.COMPLETED
    assert queue.published == []
