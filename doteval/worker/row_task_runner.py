"""Runs one row task: finds its evaluation and pending rows, has the scheduler run them, and waits for the results."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator

from doteval.broker.messages import RowTask
from doteval.coordination.budget_share import BudgetShare
from doteval.coordination.call_journal import CallJournal
from doteval.coordination.load_verdict import Prospect
from doteval.coordination.quota_guard import Quota, QuotaGuard
from doteval.core import clocks
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.log_format import IDS
from doteval.core.metering import Meter, UsageScope, setup_usage_scope
from doteval.core.results import Outcome, Row, Usage
from doteval.errors import CodeMismatchError, NotFoundError, StoreError
from doteval.pytest_runtime.items import EvaluationItem
from doteval.runner.assignments import Assignment, LoadFailedError, WindingDownError
from doteval.runner.calls import CallPolicy
from doteval.runner.scheduler import Scheduler
from doteval.store import LostUsage
from doteval.tracing.commands import row_tracer
from doteval.worker.budget_guards import BudgetGuards
from doteval.worker.code_reload import CodeReload
from doteval.worker.completion import RowTaskCompletion
from doteval.worker.context import WorkerContext, ask_to_leave
from doteval.worker.giving_back import GivingBack
from doteval.worker.held_tasks import HeldTasks, Hold
from doteval.worker.prefetch import Prefetch, PrefetchedRows
from doteval.worker.row_task_errors import EndedError, GiveBackError

# Seconds for which a running evaluation that the store returned is used for further row tasks.
_EVALUATION_FRESH_SECONDS = 0.25

logger = logging.getLogger("doteval.worker")


class RowTaskRunner:
    """Runs row tasks, several at a time on threads of Celery's pool.

    held_tasks: where row tasks are noted while they run.
    prefetch: counts their rows.
    on_stored: called on the writer's thread for every outcome whose result is stored.
    code_reload: replaces this process if its files have changed.
    """

    def __init__(
        self,
        context: WorkerContext,
        held_tasks: HeldTasks,
        prefetch: Prefetch,
        on_stored: Callable[[Outcome], None],
        code_reload: CodeReload,
    ) -> None:
        self._context = context
        self._code_reload = code_reload
        self._held_tasks = held_tasks
        self._prefetch = prefetch
        self._on_stored = on_stored
        self.giving_back = GivingBack(context.dispatcher, prefetch, context.leaving)
        self._budget_guards = BudgetGuards(
            context.store,
            context.writer,
            read_store=context.read_store,
            leaving=context.leaving,
            worker_id=lambda: context.registration.id,
        )
        # By assignment: the uid of its evaluation.
        self._assigned: dict[Assignment, str] = {}
        # By uid: the end of freshness, and the evaluation.
        self._recent: dict[str, tuple[float, Evaluation]] = {}

    def run(self, task: RowTask, lease: str | None = None, *, redelivered: bool = False, waiting: bool = False) -> str:
        """Run the pending rows of a row task. Returns counts, once the results are stored.

        lease: the tag of the message, which is renewed until then.
        redelivered: such a message is dropped if a live worker process holds its rows.
        waiting: also run rows that wait for a batch.

        Raises GiveBackError: if this process leaves before all rows ran.
        """
        if redelivered and self._held_tasks.is_held(task):
            return "dropped: a live worker process holds these rows"
        with (
            self._held_tasks.hold(task, lease) as hold,
            self._prefetch.rows(task.evaluation_uid, task.last - task.first + 1) as prefetched,
        ):
            return self._run_held(task, prefetched, hold, waiting=waiting)

    def run_waiting(self, evaluation: Evaluation, index: int) -> None:
        """Run a row that waits for a batch: it asks for its calls, which tells this process who their client is.

        Raises GiveBackError: if this process leaves before.
        """
        self.run(RowTask(evaluation.uid, index, index), waiting=True)

    def log_ids(self, task: RowTask) -> dict[str, dict[str, object]]:
        """The ids that log lines about a row task carry."""
        ids: dict[str, object] = {
            "evaluation_id": task.evaluation_uid,
            "first_row": task.first,
            "last_row": task.last,
        }
        known = self._context.code_match.known(task.evaluation_uid)
        if known is not None:
            ids |= {"experiment": known.experiment.name, "evaluation": known.spec.nodeid}
        return {IDS: ids}

    def withdraw_ended(self, scheduler: Scheduler) -> None:
        """Begin no further row of evaluations that were cancelled or deleted since their rows were assigned."""
        assigned = self._assigned.copy()
        if not assigned:
            return
        statuses = self._context.store.evaluations.statuses(set(assigned.values()))
        for assignment, uid in assigned.items():
            status = statuses.get(uid)
            if status is not EvaluationStatus.RUNNING and not assignment.withdrawn:
                why = "was deleted" if status is None else f"is {status}"
                scheduler.withdraw(assignment, EndedError(f"the evaluation {why}"))

    def _run_held(self, task: RowTask, prefetched: PrefetchedRows, hold: Hold, *, waiting: bool) -> str:
        context = self._context
        assert context.scheduler is not None
        try:
            evaluation = self._evaluation(task.evaluation_uid)
        except NotFoundError:
            return f"dropped: the store {context.store.url} has no such evaluation"
        if evaluation.status in (EvaluationStatus.CANCELLED, EvaluationStatus.FAILED):
            return f"dropped: the evaluation is {evaluation.status}"
        try:
            item = context.code_match.match(evaluation)
        except CodeMismatchError as error:
            return self._refuse(evaluation, error)
        self._charge_set_up(evaluation, item)
        guard = self._budget_guards.of(evaluation)
        if guard.quota.has_ended:
            self._recent.pop(evaluation.uid, None)
            evaluation = self._evaluation(evaluation.uid)
            if evaluation.status is not EvaluationStatus.RUNNING:
                return f"dropped: the evaluation is {evaluation.status}"
            guard = self._budget_guards.renew(evaluation, guard)
        # In batch mode rows send nothing, and batches keep the budget.
        refusal = None if evaluation.config.batch else guard.refusal()
        if refusal is not None:
            if isinstance(refusal, EndedError):
                return f"dropped: {refusal}"
            raise refusal
        rows = context.read_store(
            lambda store: store.rows.pending(evaluation.id, task.first, task.last, waiting=waiting)
        )
        if not rows:
            return "0 rows: all done before, or waiting for a batch"
        if not evaluation.config.batch:
            # Those of a batch come again while the row task is held that they were parked in, and pay nothing twice.
            rows = [row for row in rows if not any(each.first <= row.index <= each.last for each in hold.before)]
        if not rows:
            return "dropped: this worker process holds these rows"
        prefetched.resize(len(rows), context.scheduler.rows_at_once(item))
        suspects = context.read_store(lambda store: store.crashes.suspects(evaluation.id, task.first, task.last))
        # A row that may have killed a process runs alone, so that no other row is blamed for it.
        parts = [
            (part, alone)
            for part, alone in (
                ([row for row in rows if (row.index, row.sample) not in suspects], False),
                ([row for row in rows if (row.index, row.sample) in suspects], True),
            )
            if part
        ]
        journal = CallJournal(evaluation, context.writer)
        context.read_store(lambda store: journal.load(store, task.first, task.last))
        share = None if evaluation.config.batch else self._budget_guards.permits_of(evaluation)
        completion = RowTaskCompletion(
            evaluation,
            context.writer,
            self._on_stored,
            journal,
            context.usage_journal,
            prefetched,
            parts=len(parts),
            unended=None if share is None else share.unended,
        )
        with self.giving_back.watch(evaluation, hold, prefetched) as unbegun:
            assignments = [
                self._assignment(evaluation, item, unbegun.begin(part), completion, journal, guard, share, alone=alone)
                for part, alone in parts
            ]
            self._assigned.update(dict.fromkeys(assignments, evaluation.uid))
            try:
                for assignment in assignments:
                    context.scheduler.assign(assignment)
                cut = completion.wait()
            finally:
                for assignment in assignments:
                    del self._assigned[assignment]
        self._close(journal)
        if guard.quota.stop is not None:
            self._budget_guards.end_without_quota(evaluation, guard, guard.quota.stop)
        summary = self._summary(evaluation, completion, cut)
        return f"{summary}, {unbegun.given_back} given back" if unbegun.given_back else summary

    def _assignment(
        self,
        evaluation: Evaluation,
        item: EvaluationItem,
        rows: Iterator[Row],
        completion: RowTaskCompletion,
        calls: CallJournal,
        guard: QuotaGuard,
        share: BudgetShare | None,
        *,
        alone: bool,
    ) -> Assignment:
        note = functools.partial(self._context.inflight_journal.note, evaluation.id)
        return Assignment(
            item,
            rows,
            functools.partial(self._record, completion, guard.quota),
            completion.ended,
            note=note if share is None else functools.partial(share.unended.note, note=note),
            alone=alone,
            policy=CallPolicy.from_config(evaluation.config),
            name=evaluation.uid,
            # In batch mode rows send nothing, and batches keep the budget.
            check=None if evaluation.config.batch else guard,
            permits=share,
            cache=evaluation.config.cache,
            calls_of=calls.calls_of,
            tracer=row_tracer(evaluation, self._context.options.client_config.tracing),
            record_lost_usage=self._record_lost_usage,
        )

    def _record(self, completion: RowTaskCompletion, quota: Quota, row: Row, outcome: Outcome) -> None:
        quota.note(outcome)
        completion.record(row, outcome)

    def _close(self, journal: CallJournal) -> None:
        try:
            journal.close(self._context.store)
        except StoreError as error:
            logger.warning("it is not stored that rows have paid for calls again: %s", error.message)

    def _summary(self, evaluation: Evaluation, completion: RowTaskCompletion, cut: BaseException | None) -> str:
        """The counts of a row task that has ended; `cut` is what ended it before its last row.

        Raises GiveBackError: if another process shall run the rest.
        """
        if isinstance(cut, EndedError):
            return f"dropped: {cut}; {completion.summary()} before"
        if isinstance(cut, LoadFailedError):
            self._context.loads.failed_for(evaluation.id, cut)
            raise self._give_back(evaluation, cut) from cut
        if isinstance(cut, WindingDownError):
            raise GiveBackError(f"leaving; {completion.summary()}") from cut
        if cut is not None:
            raise cut
        return completion.summary()

    def _refuse(self, evaluation: Evaluation, error: CodeMismatchError) -> str:
        """Refuse a row task whose evaluation has other files than this process. Returns why it is dropped.

        Raises GiveBackError: if another process may be able to run it.
        """
        context = self._context
        reloads = self._code_reload.want(evaluation, error, again=context.loads.was_reloaded_for(evaluation.id))
        context.loads.refused(evaluation.id, error.message, reloads=reloads)
        settled = context.dispatcher.settle(evaluation)
        if settled.status is not EvaluationStatus.RUNNING:
            return f"dropped: the evaluation is {settled.status}"
        if self._code_reload.leave_if_idle(context.store.evaluations.running()):
            raise GiveBackError(error.message) from error
        if context.dispatcher.prospect(evaluation) is Prospect.AFTER_RELOAD:
            # Given back, it would be here again at once. The dispatcher publishes the rows once a process can run them.
            return f"dropped until the changed files are loaded: {error.message}"
        raise GiveBackError(error.message) from error

    def _give_back(self, evaluation: Evaluation, error: Exception) -> GiveBackError:
        """The error to raise for a row task that this process cannot run; the process leaves.

        If no worker process can run it, the evaluation ends here instead, and the redelivered task is dropped.
        """
        settled = self._context.dispatcher.settle(evaluation)
        if settled.status is EvaluationStatus.RUNNING:
            self._context.wind_down(f"it cannot run {error}")
            ask_to_leave()
        return GiveBackError(str(error))

    def _evaluation(self, uid: str) -> Evaluation:
        """An evaluation as it was at most a moment ago. The heartbeat also notices when one ends.

        Raises NotFoundError: if there is none.
        """
        recent = self._recent.get(uid)
        if recent is not None and clocks.monotonic() < recent[0]:
            return recent[1]
        evaluation = self._context.read_store(lambda store: store.evaluations.by_uid(uid))
        if evaluation.status is EvaluationStatus.RUNNING:
            self._recent[uid] = clocks.monotonic() + _EVALUATION_FRESH_SECONDS, evaluation
        return evaluation

    def _charge_set_up(self, evaluation: Evaluation, item: EvaluationItem) -> None:
        """Charge the usage of fixtures that were loaded before any row to the first evaluation that requests them."""
        meter = Meter(setup_usage_scope(evaluation.uid))
        for usage in self._context.loads.take_unpaid(item):
            meter.add(usage)
        if meter.scope is not None:
            self._record_lost_usage(meter.scope, meter.reading())

    def _record_lost_usage(self, scope: UsageScope, used: tuple[Usage, ...]) -> None:
        """Store usage that belongs to no result. If that fails, it stays in the usage journal, which others read."""
        if not used:
            return
        try:
            lost = LostUsage(scope.evaluation, scope.index, scope.sample, used)
            self._context.store.usage.add_lost([lost], self._context.registration.id)
        except StoreError as error:
            logger.warning("the usage of the fixtures' set-up is not stored yet: %s", error.message)
        else:
            self._context.usage_journal.stored(scope)
