"""The status of an experiment: where its rows are, which worker processes live, and what happens next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from doteval.coordination.claims import NOBODY_RUNS_IT, nobody_runs
from doteval.coordination.publish_cursor import is_held_back, published_up_to
from doteval.core.batches import BatchProgress
from doteval.core.budgets import Spent
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment
from doteval.core.liveness import DEAD_AFTER_SECONDS
from doteval.core.queues_and_devices import DEFAULT_QUEUE, worker_command_for
from doteval.core.states import EvaluationEnd, LoadFailureKind, WorkerEnd, WorkerPhase
from doteval.core.wording import counted
from doteval.pytest_runtime.fingerprint import unread_files
from doteval.store import LoadFailure, Store, WorkerState, held_by


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """Where the pending rows of an evaluation are; each sample counts.

    held: by live worker processes
    orphaned: held by dead worker processes
    published: held by no process; they wait in the queue, or are lost
    plan: sentences that say what is going to happen to the rows
    abandoned: whether it is running by its status, and no process runs it or is going to
    batches: of its calls, with the rows that wait for them
    """

    evaluation: Evaluation
    held: int
    orphaned: int
    published: int
    unpublished: int
    plan: tuple[str, ...]
    abandoned: bool = False
    batches: BatchProgress = field(default_factory=BatchProgress)


@dataclass(frozen=True, slots=True)
class ExperimentStatus:
    """The status of an experiment's evaluations and of the worker processes.

    dead: worker processes that died since the experiment began
    failed_starts: the last try of each worker process of a service that cannot start
    queued: how many messages of all experiments wait in each queue, None if that is not known
    """

    evaluations: list[EvaluationProgress]
    live: list[WorkerState]
    dead: list[WorkerState]
    failed_starts: list[WorkerState]
    queued: Mapping[str, int] | None


def experiment_status(
    store: Store, experiment: Experiment, *, queue: str = DEFAULT_QUEUE, queued: Mapping[str, int] | None = None
) -> ExperimentStatus:
    """Read the status of an experiment from the store.

    queue: the queue of evaluations that name none
    queued: how many messages wait in each of the broker's queues, None if that is not known
    """
    live = store.workers.live()
    known = [worker for worker in store.workers.all() if worker.beat_at >= experiment.created_at]
    dead = [worker for worker in known if _has_died(worker)]
    evaluations = [_progress(store, each, live, dead, queue, queued) for each in store.evaluations.of(experiment)]
    return ExperimentStatus(evaluations, live, dead, _failed_starts(known), queued)


def _failed_starts(workers: Sequence[WorkerState]) -> list[WorkerState]:
    """The last ones of the worker processes that could not start, without those whose successor became ready."""
    failed: dict[tuple[str, str], WorkerState] = {}
    for worker in workers:
        place = worker.info.service, worker.info.hostname
        if worker.end_cause is WorkerEnd.FAILED_TO_START:
            failed[place] = worker
        elif worker.state is not WorkerPhase.LOADING:
            failed.pop(place, None)
    return list(failed.values())


def _has_died(worker: WorkerState) -> bool:
    if worker.left_at is None:
        return worker.age > DEAD_AFTER_SECONDS
    # A supervisor saw it end. A process that leaves in order reports that itself, and the first cause is kept.
    return worker.end_cause is not None and worker.end_cause.is_crash


def _progress(
    store: Store,
    evaluation: Evaluation,
    live: Sequence[WorkerState],
    dead: Sequence[WorkerState],
    otherwise: str,
    queued: Mapping[str, int] | None,
) -> EvaluationProgress:
    queue = evaluation.queue or otherwise
    held = _count(store, evaluation, live)
    orphaned = _count(store, evaluation, dead)
    cursor = store.evaluations.published(evaluation.id)
    held_back = is_held_back(cursor)
    batches = store.batches.progress([evaluation.id])
    ready = evaluation.counts.pending - batches.waiting
    unpublished = min(max(0, ready), store.rows.count_pending_from(evaluation.id, published_up_to(cursor)))
    if held_back:
        # The rows of the sample that wait in the queue are among them: this process does not know which ones they are.
        unpublished = max(0, ready - held - orphaned)
    published = max(0, ready - unpublished - held - orphaned)
    progress = EvaluationProgress(evaluation, held, orphaned, published, unpublished, (), batches=batches)
    holders = sum(any(part.evaluation_uid == evaluation.uid for part in worker.holding) for worker in dead)
    # Rows that pytest runs in its own process are on no queue.
    served = any(queue in each.info.queues for each in live) if evaluation.config.submitted else bool(live)
    spent = store.usage.spent(evaluation.experiment) if evaluation.config.budget else Spent()
    waiting = None if queued is None else queued.get(queue)
    start = _start(queue, bool(live), private=evaluation.is_private)
    plan = _plan(progress, start, served, holders, waiting, spent, held_back=held_back)
    abandoned = nobody_runs(store, evaluation)
    # Whether a command that imports is alive is not known here.
    if abandoned and evaluation.config.imported_from is None:
        plan = [NOBODY_RUNS_IT, *(plan[-1:] if evaluation.counts.failed else [])]
    elif not abandoned and _is_being_read(store, evaluation):
        plan.append("its dataset is still being read")
    if evaluation.status is EvaluationStatus.RUNNING and evaluation.config.submitted:
        serving = [worker for worker in live if queue in worker.info.queues]
        plan += _other_files(evaluation, store.loads.failures(evaluation.id), serving)
    return replace(progress, plan=tuple(plan), abandoned=abandoned)


def _other_files(evaluation: Evaluation, failures: Sequence[LoadFailure], serving: Sequence[WorkerState]) -> list[str]:
    """Which worker processes of its queue do not run an evaluation now, because they have read other files."""
    last = {failure.worker_id: failure for failure in failures}
    said = []
    waiting, files = 0, dict[str, None]()
    for worker in serving:
        refusal = last.get(worker.id)
        if refusal is not None and refusal.kind is LoadFailureKind.OTHER_CODE:
            said.append(f"{worker.info.service} (process {worker.info.pid}) does not run it: {refusal.error}")
        elif worker.code is not None and worker.code.reloads:
            unread = unread_files(evaluation.spec.fingerprint, worker.code.files)
            waiting += bool(unread)
            files.update(dict.fromkeys(unread))
    if waiting and evaluation.counts.pending:
        processes = counted(waiting, "worker process loads", "worker processes load")
        said.append(f"{processes} the changed {', '.join(files)} once there are no other rows to run")
    return said


def _count(store: Store, evaluation: Evaluation, workers: Sequence[WorkerState]) -> int:
    """How many pending rows of an evaluation worker processes hold."""
    return store.rows.count_pending(evaluation.id, held_by(workers, evaluation.uid))


def _start(queue: str, anybody: bool, *, private: bool) -> str:
    """What to do about a queue without worker processes."""
    if private:
        return "the worker processes of its submission are gone: submit it again"
    who = f"no worker process serves the queue {queue!r}" if anybody else "no worker process is there"
    return f"{who}: start one with `{worker_command_for(queue)}`, or submit again"


def _is_being_read(store: Store, evaluation: Evaluation) -> bool:
    return evaluation.status is EvaluationStatus.RUNNING and not store.rows.dataset_state(evaluation.id).complete


def _plan(
    progress: EvaluationProgress,
    start: str,
    served: bool,
    holders: int,
    queued: int | None,
    spent: Spent,
    *,
    held_back: bool,
) -> list[str]:
    evaluation = progress.evaluation
    pending = evaluation.counts.pending
    if evaluation.config.imported_from is not None:
        # Nothing here can run its rows.
        if evaluation.status is EvaluationStatus.RUNNING:
            return ["its import has not ended; if it was killed, the same `doteval import` replaces what it left"]
        return [f"{counted(pending, 'result')} missing in the log that was imported"] if pending else []
    budget = evaluation.config.budget
    stop = budget.used_up_by(spent)
    plan = [f"the experiment has spent {budget.compare(spent)}"] if budget else []
    if evaluation.status is EvaluationStatus.RUNNING and stop and pending:
        plan.append(f"no further row begins, since {stop.message}; rows in flight end")
    elif evaluation.status is EvaluationStatus.RUNNING:
        if pending and not served:
            plan.append(start)
        if progress.orphaned:
            whose = "a dead worker process" if holders == 1 else counted(holders, "dead worker process")
            plan.append(f"{counted(progress.orphaned, 'row')} of {whose} will be published again")
        if progress.published:
            lost = queued == 0 and not progress.held
            they = "it" if progress.published == 1 else "they"
            if lost:
                rows = counted(progress.published, "row")
                plan.append(f"{rows} no message carries any more: {they} will be published again")
            else:
                rows = counted(progress.published, "row waits", "rows wait")
                plan.append(f"{rows} for a worker process")
        if progress.batches.waiting:
            waiting = counted(progress.batches.waiting, "row waits", "rows wait")
            plan.append(f"{waiting} for batches: {progress.batches}")
        if held_back:
            plan.append("only the rows of an estimate run, until the user of `doteval submit --estimate` has agreed")
        elif progress.unpublished:
            plan.append(f"{counted(progress.unpublished, 'row')} will be published as the queue has room")
    elif pending:
        without_money = evaluation.end_cause is EvaluationEnd.QUOTA_USED_UP
        more = " with a larger budget" if evaluation.stopped_at_budget and not without_money else ""
        plan.append(f"{counted(pending, 'row')} pending: submit again{more} to go on")
    if evaluation.counts.failed:
        them = "it" if evaluation.counts.failed == 1 else "them"
        plan.append(f"{counted(evaluation.counts.failed, 'row')} failed: `doteval retry` runs {them} again")
    return plan
