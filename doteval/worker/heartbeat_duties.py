"""What a worker process does at intervals, beside running rows."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from doteval.core import clocks
from doteval.core.exit_codes import UNEXPECTED
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.liveness import BEAT_SECONDS, DISPATCH_SECONDS, is_orphaned
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.core.wording import counted
from doteval.errors import RowTimeoutError
from doteval.monitoring import process_figures
from doteval.pytest_runtime.fixture_watchdog import FixtureWatchdog
from doteval.store import HeldRange
from doteval.worker.code_reload import CodeReload
from doteval.worker.context import WorkerContext
from doteval.worker.held_tasks import HeldTasks
from doteval.worker.priority_pool import received_tasks
from doteval.worker.row_task_runner import RowTaskRunner

logger = logging.getLogger("doteval.worker")


class HeartbeatDuties:
    """The duties of a worker process. Those of its heartbeat never wait for the broker, which may be silent.

    broker_silence: for how many seconds the broker has said nothing, None if they are not too many.
    loaded: set once the session fixtures are loaded.
    check_memory: called on every beat; recycles the process if it uses too much memory.
    on_ended: called with each evaluation that this process has ended.
    code_reload: replaces this process if its files have changed.
    """

    def __init__(
        self,
        context: WorkerContext,
        runner: RowTaskRunner,
        held_tasks: HeldTasks,
        watchdog: FixtureWatchdog,
        *,
        teardown_seconds: float,
        loaded: threading.Event,
        broker_silence: Callable[[], float | None],
        check_memory: Callable[[], None],
        on_ended: Callable[[Evaluation], None],
        code_reload: CodeReload,
    ) -> None:
        self._context = context
        self._runner = runner
        self._held_tasks = held_tasks
        self._watchdog = watchdog
        self._teardown_seconds = teardown_seconds
        self._loaded = loaded
        self._broker_silence = broker_silence
        self._check_memory = check_memory
        self._on_ended = on_ended
        self._code_reload = code_reload

    def schedule(self) -> tuple[tuple[float, Callable[[], None]], ...]:
        """Each duty of the heartbeat with the seconds between two times that it is done."""
        return (
            (BEAT_SECONDS, self.beat),
            (BEAT_SECONDS, self._check_memory),
            (BEAT_SECONDS, self.end_overdue_teardown),
            (BEAT_SECONDS, self.leave_overdue_rows),
        )

    def broker_schedule(self) -> tuple[tuple[float, Callable[[], None]], ...]:
        """The same of the duties that talk to the broker, for a thread of their own."""
        return (
            (DISPATCH_SECONDS, self.dispatch),
            (BEAT_SECONDS, self._runner.giving_back.check),
            (max(BEAT_SECONDS, self._context.options.visibility_timeout / 4), self.renew_leases),
        )

    def beat(self) -> None:
        """Report to the store that this process lives and which rows it holds."""
        context = self._context
        # Tasks that wait for a thread are held too: no other process has them.
        received = {HeldRange(task.evaluation_uid, task.first, task.last) for task in received_tasks()}
        holding = dict.fromkeys([*self._held_tasks.ranges(), *(received - self._held_tasks.messages())])
        silence = self._broker_silence()
        if not context.registration.beat(state=context.state, holding=list(holding), broker_silence=silence):
            context.writer.worker_id = context.loads.worker_id = context.registration.id
        if context.scheduler is not None:
            context.scheduler.post(context.loads.snapshot)
            begun = context.inflight_journal.in_flight
            process_figures.set_rows_in_flight(min(begun, context.scheduler.rows_at_once()))
            self._runner.withdraw_ended(context.scheduler)

    def end_overdue_teardown(self) -> None:
        """End this process if a fixture's teardown takes too long, once all results so far are stored."""
        context = self._context
        if (context.leaving.is_set() or is_orphaned(context.options.parent)) and not self._loaded.is_set():
            # Nobody needs the load any more.
            self._watchdog.closing("the load of the session fixtures")
        what = self._watchdog.overdue()
        if what is None:
            return
        why = f"{what} has not ended within {self._teardown_seconds:g} s"
        if context.scheduler is not None:
            context.scheduler.give_up_teardowns(RowTimeoutError(why))
        if not context.writer.flush(timeout=BEAT_SECONDS):
            # The store is away. The next beat tries again: the results are worth the wait.
            return
        logger.error("%s; this worker process leaves without it, and all results so far are stored", why)
        # No thread can end another, and an orderly exit would wait for the one that tears down.
        context.leave_at_once(WorkerEnd.STUCK, f"was stuck: {why}", UNEXPECTED)

    def leave_overdue_rows(self) -> None:
        """End this process without the rows in flight if they take too long to end after it was asked to leave."""
        context = self._context
        if context.rows_due is None or clocks.monotonic() < context.rows_due:
            return
        if not context.writer.flush(timeout=BEAT_SECONDS):
            # As for a teardown: the next beat tries again.
            return
        rows = counted(context.inflight_journal.in_flight, "row")
        why = f"left without {rows} in flight: more than {context.drain_seconds:g} s (drain_timeout) had passed"
        logger.warning("%s; rows without a result stay pending", why)
        context.leave_at_once(WorkerEnd.LEFT, why, os.EX_OK)

    def renew_leases(self) -> None:
        """Renew the leases of the messages that this process holds, so that the broker does not deliver them again."""
        self._context.publisher.renew(self._held_tasks.leases())

    def dispatch(self) -> None:
        """Publish lost rows and end evaluations in place of a submitter that has left."""
        context = self._context
        if context.state is not WorkerPhase.READY:
            return
        running = context.store.evaluations.running()
        if self._code_reload.leave_if_idle(running):
            return
        for evaluation in running:
            # Plain pytest runs the others in its own process.
            if not evaluation.config.submitted:
                continue
            if context.dispatcher.queue_of(evaluation) in context.options.queues:
                current = context.dispatcher.settle(evaluation)
            else:
                # The workers of its queue publish its rows, but they may have left after the last one.
                current = context.dispatcher.conclude(evaluation)
            if current.status is not EvaluationStatus.RUNNING:
                self._on_ended(current)
