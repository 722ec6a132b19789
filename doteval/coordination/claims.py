"""Claims: where several commands could run the rows of one evaluation, one at a time does.

Plain pytest and `run` execute every row themselves, and a private broker is known to one command only. The second
command waits until the first one ends, and runs the rows that it left. Rows that worker processes run stay with them,
whether a submitter follows or not. The other direction needs no claim: a submitter publishes no rows that a live
process holds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from doteval.coordination.publish_cursor import is_held_back
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment
from doteval.core.liveness import DEAD_AFTER_SECONDS, LATE_AFTER_SECONDS
from doteval.core.process_identity import pid_space
from doteval.core.queues_and_devices import DEFAULT_QUEUE
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.store import HeldRange, Store, WorkerState

_LOOK_SECONDS = 0.5

NOBODY_RUNS_IT = "nobody runs it: its command was killed, or its machine is gone; the same command again continues it"

# Makes the caller hold all rows of an evaluation, or returns a process that holds some.
Claim = Callable[[Evaluation], WorkerState | None]


def wait_for_claim(store: Store, evaluation: Evaluation, claim: Claim, *, on_message: Callable[[str], None]) -> None:
    """Return when this process holds all rows of an evaluation, and no other process holds any.

    `claim` tries to take the rows. `on_message` is called once, with a line for the user, if they are not free.

    Raises StoreError if the store cannot be used.
    """

    def other() -> WorkerState | None:
        now = store.evaluations.by_uid(evaluation.uid)
        return (now.config.submitted and _serving(store, now)) or claim(evaluation)

    _wait_while(other, evaluation, on_message)


def wait_for_other_brokers(
    store: Store, evaluations: Sequence[Evaluation], *, on_message: Callable[[str], None], private: bool
) -> None:
    """Return when no evaluation is being run by worker processes of another broker, whose queue cannot be seen.

    A broker is another one if it is a private broker, or if ours is (`private`). `on_message` is called once for each
    evaluation that has to wait, with a line for the user.

    Raises StoreError if the store cannot be used.
    """
    _end_killed(store, evaluations)
    for evaluation in evaluations:

        def other(uid: str = evaluation.uid) -> WorkerState | None:
            now = store.evaluations.by_uid(uid)
            other_broker = now.is_private or (private and now.config.submitted)
            return _serving(store, now) if other_broker else None

        _wait_while(other, evaluation, on_message)


def nobody_runs(store: Store, evaluation: Evaluation) -> bool:
    """Whether an evaluation is running by its status, and no process runs it or is going to.

    The command that ran or submitted it was killed, say. Row tasks on a shared broker wait for worker processes however
    long these take to come, so such an evaluation is left to nobody only while its dataset is not in the store, or its
    rows are held back until somebody has seen an estimate.
    """
    if evaluation.status is not EvaluationStatus.RUNNING:
        return False
    workers = store.workers.live()
    holders = [
        each
        for each in [*workers, *store.workers.submitters()]
        if any(held.evaluation_uid == evaluation.uid for held in each.holding)
    ]
    if any(not has_ended(each) for each in holders):
        return False
    if not evaluation.config.submitted:
        return True
    if evaluation.is_private:
        return not any(evaluation.queue in each.info.queues and not has_ended(each) for each in workers)
    if is_held_back(store.evaluations.published(evaluation.id)):
        return True
    return not store.rows.dataset_state(evaluation.id).complete


def somebody_runs(store: Store, evaluation: Evaluation) -> bool:
    """Whether an evaluation is running, and a process runs it or is going to."""
    return evaluation.status is EvaluationStatus.RUNNING and not nobody_runs(store, evaluation)


def is_left_by_all(store: Store, experiment: Experiment) -> bool:
    """Whether evaluations of an experiment are running by their status, and nobody runs any of them."""
    running = [each for each in store.evaluations.of(experiment) if each.status is EvaluationStatus.RUNNING]
    return bool(running) and all(nobody_runs(store, each) for each in running)


def has_ended(worker: WorkerState) -> bool:
    """Whether a late process has ended whose pid means something here. False for processes of other machines."""
    where = worker.info.pid_space
    if where is None or where != pid_space() or worker.age < LATE_AFTER_SECONDS:
        return False
    try:
        os.kill(worker.info.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # Another user's process has this pid.
        return False
    return False


def _end_killed(store: Store, evaluations: Sequence[Evaluation]) -> None:
    """Record the end of processes that ran evaluations by themselves and were killed.

    Without this, nobody would publish their rows until they count as dead. The supervisor of a worker process records
    its end itself.
    """
    whole = {HeldRange.whole(evaluation.uid) for evaluation in evaluations}
    for worker in store.workers.live():
        if whole.intersection(worker.holding) and has_ended(worker):
            store.workers.end(worker.id, WorkerEnd.LOST, reason="was killed, or ended without recording why")


def _wait_while(
    other: Callable[[], WorkerState | None], evaluation: Evaluation, on_message: Callable[[str], None]
) -> None:
    """Wait while another process runs an evaluation, and say which one."""
    said = False
    while (found := other()) is not None:
        # One that seems to be dead is only watched for a moment, in case the database's clock was set.
        if not said and found.age <= DEAD_AFTER_SECONDS:
            said = True
            who = f"{found.info.service} (process {found.info.pid} on {found.info.hostname})"
            on_message(
                f"{evaluation.name} of the experiment {evaluation.experiment.name!r} is being run by {who}: waiting "
                "for its end, to run what it leaves"
            )
        time.sleep(_LOOK_SECONDS)


def _serving(store: Store, evaluation: Evaluation) -> WorkerState | None:
    """A worker process that goes on taking rows of a running evaluation, None if there is none."""
    if evaluation.status is not EvaluationStatus.RUNNING:
        return None
    queue = evaluation.queue or DEFAULT_QUEUE
    serving = (worker for worker in store.workers.live() if queue in worker.info.queues)
    return next((worker for worker in serving if worker.state is not WorkerPhase.DRAINING), None)
