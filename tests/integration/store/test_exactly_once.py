"""Store and dispatcher against a simple model: whatever comes in between, each row gets exactly one result.

Hypothesis interleaves what submitters, worker processes and the broker do: deliver, deliver again, run, commit,
crash, lose the queue, cancel, resume, retry. After each step the store is compared with the model; in the end
everything is brought to completion as it would be.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from doteval.broker.messages import RowTask
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.results import ErrorClass, Outcome, Row, RowStatus
from doteval.core.states import WorkerEnd
from doteval.store import HeldRange, Store, WorkerInfo
from tests.support.store_workload import SPEC, counted, done, failed, results, rows

QUEUE = "doteval"
# Longer than the dispatcher waits until rows count as lost, in steps short enough not to count as a gap.
TICKS = (1.0, 1.0, 1.0, 1.0, 1.0)
Key = tuple[int, int]

_numbers = count()


class Messages:
    """A broker's queue, whose messages are received one by one."""

    def __init__(self) -> None:
        self.queue = QUEUE
        self.waiting: list[RowTask] = []
        self._fair_queues: dict[RowTask, int] = {}

    def publish(
        self,
        tasks: Iterable[RowTask],
        *,
        experiment: str,
        evaluation: str,
        fair_queue: int = 0,
        queue: str | None = None,
    ) -> int:
        assert queue == QUEUE
        published = list(tasks)
        self.waiting += published
        self._fair_queues.update(dict.fromkeys(published, fair_queue))
        return len(published)

    def queued(self, fair_queue: int | None = None, *, queue: str | None = None) -> int:
        assert queue == QUEUE
        return sum(fair_queue is None or self._fair_queues[task] == fair_queue for task in self.waiting)


@dataclass
class Worker:
    """A live worker process with its held tasks, each with the rows that are left to run."""

    id: int
    pid: int
    held: list[tuple[RowTask, list[Row]]] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """The result of a row and sample in the model."""

    status: RowStatus
    error_class: ErrorClass | None = None
    to_be_retried: bool = False


class Machine(RuleBasedStateMachine):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.messages = Messages()
        self.now = 1000.0
        self.workers: list[Worker] = []
        self.model: dict[Key, Known] = {}
        self.attempts: dict[Key, int] = {}
        self.evaluation: Evaluation

    @initialize(
        length=st.integers(1, 12),
        epochs=st.integers(1, 2),
        rows_per_task=st.integers(1, 5),
        processes=st.integers(1, 3),
    )
    def submit(self, length: int, epochs: int, rows_per_task: int, processes: int) -> None:
        self.length, self.epochs = length, epochs
        self.dispatchers = [
            Dispatcher(self.store, self.messages, DispatchOptions(rows_per_task=rows_per_task), clock=lambda: self.now)
            for _ in range(2)
        ]
        self.experiment = self.store.experiments.begin(f"experiment {next(_numbers)}")
        self.evaluation = self.store.evaluations.begin(self.experiment, SPEC, epochs=epochs)
        self.store.rows.add(self.evaluation.id, rows(length))
        self.store.rows.set_total(self.evaluation.id, length, complete=True, fingerprint=None)
        for _ in range(processes):
            self.begin_worker()

    def begin_worker(self) -> Worker:
        pid = next(_numbers)
        worker = Worker(self.store.workers.begin(WorkerInfo("w", "host", pid, (QUEUE,)), token=f"token {pid}"), pid)
        self.workers.append(worker)
        self.beat(worker)
        return worker

    def beat(self, worker: Worker) -> None:
        held = [HeldRange(task.evaluation_uid, task.first, task.last) for task, _ in worker.held]
        self.store.workers.beat(worker.id, state="ready", holding=held)

    def beat_all(self) -> None:
        for worker in self.workers:
            self.beat(worker)

    def status(self) -> EvaluationStatus:
        return self.store.evaluations.statuses([self.evaluation.uid])[self.evaluation.uid]

    # Submitters

    @rule(dispatcher=st.integers(0, 1), ticks=st.sampled_from([(), TICKS]))
    def settle(self, dispatcher: int, ticks: tuple[float, ...]) -> None:
        self.beat_all()
        self.dispatchers[dispatcher].settle(self.evaluation)
        for tick in ticks:
            self.now += tick
            self.dispatchers[dispatcher].settle(self.evaluation)

    @rule()
    def cancel(self) -> None:
        running = self.status() is EvaluationStatus.RUNNING
        assert running == self.store.evaluations.set_status(
            self.evaluation.id, EvaluationStatus.CANCELLED, "enough", only_from=EvaluationStatus.RUNNING
        )

    @rule()
    def resume(self) -> None:
        self.evaluation = self.store.evaluations.begin(self.experiment, SPEC, epochs=self.epochs)
        self.mark(None, None)
        self.beat_all()
        self.dispatchers[0].restart(self.evaluation)

    @rule(
        classes=st.none() | st.sets(st.sampled_from([ErrorClass.EVALUATION, ErrorClass.INFRASTRUCTURE]), min_size=1),
        index=st.none() | st.integers(0, 11),
    )
    def retry(self, classes: set[ErrorClass] | None, index: int | None) -> None:
        before = self.status()
        if self.mark(classes, index):
            self.store.evaluations.set_status(self.evaluation.id, EvaluationStatus.RUNNING)
            self.beat_all()
            if before is not EvaluationStatus.RUNNING:
                completed = before is EvaluationStatus.COMPLETED
                self.dispatchers[0].restart(self.evaluation, was_completed=completed)

    def mark(self, classes: set[ErrorClass] | None, index: int | None) -> int:
        chosen = [
            key
            for key, known in self.model.items()
            if known.status is RowStatus.FAILED
            and not known.to_be_retried
            and (classes is None or known.error_class in classes)
            and (index is None or key[0] == index)
        ]
        assert self.store.rows.count_failed(self.evaluation.id, classes=classes, index=index) == len(chosen)
        assert self.store.rows.retry_failed(self.evaluation.id, classes=classes, index=index) == len(chosen)
        for key in chosen:
            self.model[key] = replace(self.model[key], to_be_retried=True)
        return len(chosen)

    # The broker

    @precondition(lambda self: self.messages.waiting)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """A worker process receives a row task, and reads its pending rows."""
        worker = data.draw(st.sampled_from(self.workers), label="worker")
        task = self.messages.waiting.pop(data.draw(st.integers(0, len(self.messages.waiting) - 1), label="message"))
        self.take(worker, task)

    def take(self, worker: Worker, task: RowTask) -> None:
        if self.status() in (EvaluationStatus.CANCELLED, EvaluationStatus.FAILED):
            return
        worker.held.append((task, self.store.rows.pending(self.evaluation.id, task.first, task.last)))
        self.beat(worker)

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        """The broker redelivers a message that a worker process is working on."""
        task, _ = data.draw(st.sampled_from([held for worker in self.workers for held in worker.held]), label="task")
        self.messages.waiting.append(task)

    @rule()
    def lose_all_messages(self) -> None:
        self.messages.waiting.clear()

    # Worker processes

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(data=st.data(), outcome=st.sampled_from(["done", "failed", "unreachable"]), most=st.integers(1, 4))
    def run(self, data: st.DataObject, outcome: str, most: int) -> None:
        """A worker process runs the next rows of a task and stores their results in one group."""
        worker = data.draw(st.sampled_from([each for each in self.workers if each.held]), label="worker")
        position = data.draw(st.integers(0, len(worker.held) - 1), label="task")
        self.run_rows(worker, position, _OUTCOMES[outcome], most)

    def run_rows(self, worker: Worker, position: int, outcome: Outcome, most: int) -> None:
        _, waiting = worker.held[position]
        group, waiting[:] = waiting[:most], waiting[most:]
        expected = 0
        for row in group:
            key = (row.index, row.sample)
            known = self.model.get(key)
            if known is None or known.to_be_retried:
                self.attempts[key] = self.attempts.get(key, 0) + 1
                self.model[key] = Known(outcome.status, outcome.error.error_class if outcome.error else None)
                expected += 1
        assert self.store.results.write(results(self.evaluation, group, outcome), worker.id) == expected
        if not waiting:
            worker.held.pop(position)
            self.beat(worker)

    @rule()
    def withdraw(self) -> None:
        """Worker processes notice that the evaluation no longer runs."""
        if self.status() is not EvaluationStatus.RUNNING:
            for worker in self.workers:
                worker.held.clear()
                self.beat(worker)

    @rule(data=st.data(), come_back=st.booleans())
    def crash(self, data: st.DataObject, come_back: bool) -> None:
        """A worker process is killed and another one starts. The broker may redeliver its messages."""
        worker = data.draw(st.sampled_from(self.workers), label="worker")
        self.workers.remove(worker)
        self.store.workers.end_process([f"token {worker.pid}"], WorkerEnd.KILLED, reason="was killed", exit_code=-9)
        if come_back:
            self.messages.waiting += [task for task, _ in worker.held]
        self.begin_worker()

    # Invariants, and the end

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        stored = {
            (record.row.index, record.row.sample): record.outcome.status
            for record in self.store.results.records(self.evaluation.id)
        }
        assert stored == {key: known.status for key, known in self.model.items()}
        counts = self.store.evaluations.counts(self.evaluation.id)
        assert counts == counted(self.store, self.evaluation)
        assert counts.finished == sum(not known.to_be_retried for known in self.model.values())
        pending = {(row.index, row.sample) for row in self.store.rows.pending(self.evaluation.id, 0, self.length)}
        finished = {key for key, known in self.model.items() if not known.to_be_retried}
        assert pending == self.everything() - finished
        if self.status() is EvaluationStatus.COMPLETED:
            assert not pending

    def everything(self) -> set[Key]:
        return {(index, sample) for index in range(self.length) for sample in range(self.epochs)}

    def teardown(self) -> None:
        try:
            if hasattr(self, "evaluation"):
                self.bring_to_the_end()
        finally:
            for worker in self.workers:
                self.store.workers.end(worker.id, reason="the test has ended")

    def bring_to_the_end(self) -> None:
        """Finish the evaluation: it is resumed if it was cancelled, and its rows run without further faults."""
        if self.status() is EvaluationStatus.CANCELLED:
            self.resume()
        for _ in range(40):
            self.settle(0, TICKS)
            if self.status() is EvaluationStatus.COMPLETED:
                break
            for worker in self.workers:
                while self.messages.waiting:
                    self.take(worker, self.messages.waiting.pop())
                while worker.held:
                    self.run_rows(worker, 0, _OUTCOMES["done"], 100)
        assert self.status() is EvaluationStatus.COMPLETED
        self.the_store_is_as_the_model_says()
        assert self.model.keys() == self.everything()
        for index in range(self.length):
            attempts = self.store.attempts.of_row(self.evaluation.id, index)
            for sample in range(self.epochs):
                of_sample = [attempt for attempt in attempts if attempt.sample == sample]
                assert len(of_sample) == self.attempts[index, sample]
                assert [attempt.replaced for attempt in of_sample] == [True] * (len(of_sample) - 1) + [False]


def _unreachable() -> Outcome:
    outcome = failed("connection refused")
    assert outcome.error is not None
    return replace(outcome, error=replace(outcome.error, error_class=ErrorClass.INFRASTRUCTURE))


_OUTCOMES = {"done": done(), "failed": failed(), "unreachable": _unreachable()}


def test_any_interleaving_ends_with_exactly_one_result_for_each_row(store: Store) -> None:
    run_state_machine_as_test(
        lambda: Machine(store),  # type: ignore[arg-type] # Hypothesis takes any callable that makes one
        settings=settings(
            max_examples=15,
            stateful_step_count=20,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
