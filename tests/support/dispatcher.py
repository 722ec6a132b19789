"""Evaluations in a store, and worker processes that report what they hold, for tests of the dispatcher."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from doteval.broker.messages import RowTask
from doteval.core.experiments import Evaluation, EvaluationSpec
from doteval.core.results import Outcome, Row, RowStatus, Score
from doteval.core.run_config import RunConfig
from doteval.core.states import LoadFailureKind
from doteval.store import HeldRange, NewResult, Store, WorkerInfo

SPEC = EvaluationSpec("evals/eval_it.py", "eval_it", ("x",), {"evals/eval_it.py": "1"})
# Seconds, a little more than a queue must be drained before rows count as lost.
DRAINED = 3.5


def rows(count: int, first: int = 0) -> list[Row]:
    return [Row(index, f"k{index}", {"x": index}) for index in range(first, first + count)]


def begin(
    store: Store, count: int, *, name: str = "x", complete: bool = True, spec: EvaluationSpec = SPEC
) -> Evaluation:
    evaluation = store.evaluations.begin(store.experiments.begin(name), spec)
    store.rows.add(evaluation.id, rows(count))
    store.rows.set_total(evaluation.id, count, complete=complete, fingerprint=None)
    return store.evaluations.by_uid(evaluation.uid)


def begin_with(store: Store, count: int, config: RunConfig) -> Evaluation:
    """An evaluation with a run configuration."""
    return begin(store, count, spec=replace(SPEC, config=config))


def begin_on(
    store: Store, queue: str | None, count: int = 10, *, name: str = "x", path: str = "eval_q.py"
) -> Evaluation:
    """An evaluation that was submitted to a queue."""
    return begin(store, count, name=name, spec=EvaluationSpec(path, "eval_it", ("x",), {}, RunConfig(queue=queue)))


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


def sizes(tasks: list[RowTask]) -> list[int]:
    return [task.last - task.first + 1 for task in tasks]


def covered(tasks: list[RowTask]) -> Counter[int]:
    """How many row tasks hold each row."""
    return Counter(index for task in tasks for index in range(task.first, task.last + 1))


def fail_load(
    store: Store,
    worker_id: int,
    evaluation: Evaluation,
    error: str = "RuntimeError: no GPU",
    failure: LoadFailureKind = LoadFailureKind.ERROR,
) -> None:
    store.loads.begin(worker_id, "model", "", 0.0, error=error, failure=failure, evaluation_id=evaluation.id)
