"""Runs one evaluation in this process: stores its dataset, runs the rows, stores results, summarizes them."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from doteval.analysis.summary import Summary
from doteval.coordination.budget_guard import budget_guard_for, used_up
from doteval.coordination.budget_share import BudgetShare, StoredShares
from doteval.coordination.call_journal import CallJournal
from doteval.coordination.claims import wait_for_claim
from doteval.coordination.ended_evaluations import store_missing_summaries, summary_of
from doteval.coordination.endings import end_running
from doteval.coordination.ingest import ingest_dataset
from doteval.coordination.quota_guard import QuotaGuard
from doteval.core.budgets import BudgetStop
from doteval.core.experiments import Ending, Evaluation, EvaluationSpec, EvaluationStatus
from doteval.core.metering import UsageScope
from doteval.core.results import Outcome, Row, RowStatus, Usage
from doteval.core.states import EvaluationEnd
from doteval.datasets import Dataset, open_dataset
from doteval.errors import BudgetError, DotEvalError
from doteval.local.claim_guard import ClaimGuard, TakenOverError
from doteval.local.options import LocalOptions
from doteval.local.progress import ProgressLine, Screen
from doteval.local.store_session import StoreSession
from doteval.pytest_runtime.outcomes import ending_of
from doteval.runner.assignments import Assignment, EvaluationFixtures, Runnable
from doteval.runner.event_loop import LoopThread
from doteval.runner.row_retries import CallPolicy
from doteval.runner.scheduler import Scheduler
from doteval.store import ErrorCount, LostUsage, Store
from doteval.tracing.commands import row_tracer

_RANGE_ROWS = 1000
_ERRORS_SHOWN = 3


class TooManyErrorsError(Exception):
    """More rows have failed than --max-errors allows, so no further row begins."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


@dataclass(frozen=True, slots=True)
class LocalReport:
    """The outcome of one evaluation.

    errors: its most frequent errors
    resumed: how many of its rows had a result before
    seconds: how long it was worked on, by earlier commands too
    stopped: whether it was stopped at --max-errors
    """

    evaluation: Evaluation
    summary: Summary
    errors: tuple[ErrorCount, ...]
    resumed: int
    seconds: float
    stopped: bool = False


def report_on(store: Store, evaluation: Evaluation, *, resumed: int, stopped: bool = False) -> LocalReport:
    """The report of an evaluation, from what is stored now. The metrics of one that has ended are stored."""
    current = store.evaluations.by_uid(evaluation.uid)
    summary = summary_of(store, current)
    errors = tuple(store.results.errors(current.id, _ERRORS_SHOWN)) if current.counts.failed else ()
    seconds = store.evaluations.work_time(current.id).worked
    return LocalReport(current, summary, errors, resumed, seconds, stopped)


class LocalEvaluation:
    """One evaluation that is about to run in this process.

    The constructor waits until no other process runs rows of the evaluation.

    setup: the fixtures of the evaluation, set up already
    on_message: called with a line for the user if the constructor has to wait
    """

    def __init__(
        self,
        session: StoreSession,
        runnable: Runnable,
        spec: EvaluationSpec,
        setup: EvaluationFixtures,
        *,
        loop: LoopThread,
        options: LocalOptions,
        on_message: Callable[[str], None],
        screen: Screen | None = None,
    ) -> None:
        self._session = session
        self._store = session.store
        self._runnable = runnable
        self._setup = setup
        self._loop = loop
        self._options = options
        self._screen = screen
        self._on_message = on_message
        self._failed = 0
        self._lock = threading.Lock()
        self._refused: BaseException | None = None
        # The permits of the rows, None without a budget.
        self._share: BudgetShare | None = None
        known = self._store.evaluations.find(session.experiment, spec)
        self._evaluation = known or self._begin(spec)
        try:
            wait_for_claim(session.store, self._evaluation, session.claim, on_message=on_message)
            # Only now, since rows that another process runs must not change.
            was_skipped = self._store.evaluations.by_uid(self._evaluation.uid).status is EvaluationStatus.SKIPPED
            self._evaluation = self._begin(spec)
            self._store.rows.retry_failed(self._evaluation.id)
            if was_skipped:
                self._store.rows.retry_skipped(self._evaluation.id)
            self._resumed = self._store.evaluations.counts(self._evaluation.id).finished
        except BaseException as error:
            if session.holds(self._evaluation):
                self._end_by(error)
                session.release()
            raise

    def run(self, base: Path) -> LocalReport:
        """Run the rows that have no result yet, and the failed ones again.

        `base` is the directory that paths of datasets are relative to. Errors of rows are stored with them.

        Raises what `open_dataset`, `ingest_dataset` and the store raise, and KeyboardInterrupt; completed rows are
        stored by then.
        """
        try:
            return self._run(base)
        except BaseException as error:
            self._session.writer.flush()
            if not isinstance(error, TakenOverError):
                self._end_by(error)
            with contextlib.suppress(DotEvalError):
                store_missing_summaries(self._store, [self._evaluation])
            raise
        finally:
            self._session.release()

    def _run(self, base: Path) -> LocalReport:
        spec = self._runnable.spec
        dataset = open_dataset(spec.dataset, columns=spec.columns, base=base)
        progress = self._progress(dataset)
        scheduler = Scheduler(
            self._setup,
            self._loop,
            policy=CallPolicy.from_config(self._options.config),
            concurrency=self._options.concurrency,
        )
        ended: list[BaseException | None] = []
        journal = CallJournal(self._evaluation, self._session.writer)
        guard = self._guard()
        share = self._share = self._budget_share(guard)
        assignment = Assignment(
            self._runnable,
            self._pending_rows(dataset, journal),
            self._recorder(progress, journal),
            ended.append,
            name=self._evaluation.uid,
            note=None if share is None else share.unended.note,
            check=guard,
            permits=share,
            calls_of=journal.calls_of,
            tracer=row_tracer(self._evaluation, self._options.client_config.tracing),
            record_lost_usage=self.spend,
        )
        try:
            scheduler.run(assignment, drain_seconds=self._options.drain_seconds, on_message=self._on_message)
        finally:
            if share is not None:
                share.close()
            if progress is not None:
                progress.close()
            journal.close(self._store)
        self._session.writer.flush()
        cut = self._refused or ended[0]
        stopped = isinstance(cut, TooManyErrorsError)
        if cut is not None and not stopped and not isinstance(cut, BudgetError):
            raise cut
        if cut is None:
            self._store.evaluations.complete(self._evaluation.id)
        else:
            self._end_by(cut)
        return report_on(self._store, self._evaluation, resumed=self._resumed, stopped=stopped)

    def _begin(self, spec: EvaluationSpec) -> Evaluation:
        target = self._options.target
        return self._store.evaluations.begin(
            self._session.experiment, spec, epochs=target.epochs, allow_changed=target.allow_changed
        )

    @property
    def uid(self) -> str:
        return self._evaluation.uid

    def spend(self, scope: UsageScope, used: tuple[Usage, ...]) -> None:
        """Store usage that belongs to no result of the evaluation. Raises StoreError."""
        if used:
            lost = LostUsage(scope.evaluation, scope.index, scope.sample, used)
            self._store.usage.add_lost([lost], self._session.worker_id)
            self._session.usage_journal.stored(scope)

    def report_so_far(self) -> LocalReport:
        """The report of the completed rows, for when `run` was interrupted."""
        return report_on(self._store, self._evaluation, resumed=self._resumed)

    def _guard(self) -> ClaimGuard:
        budget, session = self._options.config.budget, self._session
        guard = budget_guard_for(self._store, session.experiment, budget, session.writer, BudgetError)
        quota_guard = QuotaGuard(session.quota, guard if budget else None, BudgetError)
        return ClaimGuard(lambda: session.taken_by(self._evaluation), quota_guard)

    def _budget_share(self, guard: ClaimGuard) -> BudgetShare | None:
        budget, session = self._options.config.budget, self._session
        if not budget:
            return None
        shares = StoredShares(self._store, session.experiment, lambda: session.worker_id)
        return BudgetShare(budget, shares, guard.refusal)

    def _recorder(self, progress: ProgressLine | None, calls: CallJournal) -> Callable[[Row, Outcome], None]:
        uid, put = self._evaluation.uid, self._session.writer.put
        journal = self._session.usage_journal

        def record(row: Row, outcome: Outcome) -> None:
            self._session.quota.note(outcome)
            if self._share is not None:
                self._share.unended.add(1)
            new = calls.result(row, outcome)
            outcome = new.outcome
            if outcome.usage and new.execution is not None:
                # The store counts the usage of one execution once, also if this process dies before it knows.
                scope = UsageScope(uid, row.index, row.sample)
                journal.ended(scope, new.execution)
                put(new, functools.partial(self._stored, scope=scope))
            else:
                put(new, self._stored)
            if progress is not None:
                progress.row(outcome)
            if outcome.status is RowStatus.FAILED:
                self._count_failure()

        return record

    def _stored(self, error: BaseException | None, scope: UsageScope | None = None) -> None:
        if self._share is not None:
            self._share.unended.add(-1)
        if error is not None:
            self._refused = error
        elif scope is not None:
            self._session.usage_journal.stored(scope)

    def _count_failure(self) -> None:
        with self._lock:
            self._failed += 1
            most = self._options.max_errors
            if most is not None and self._failed > most:
                raise TooManyErrorsError(Ending.at_max_errors(most))

    def _progress(self, dataset: Dataset) -> ProgressLine | None:
        if self._screen is None:
            return None
        rows, samples = dataset.length, self._options.target.samples
        if rows is not None and samples is not None:
            rows = min(rows, samples)
        total = None if rows is None else rows * self._options.target.epochs - self._resumed
        return ProgressLine(self._screen, self._evaluation.name, total if total and total > 0 else None)

    def _pending_rows(self, dataset: Dataset, journal: CallJournal) -> Iterator[Row]:
        rows, target = self._store.rows, self._options.target
        evaluation, samples, epochs = self._evaluation, target.samples, target.epochs
        seen = -1
        for chunk in ingest_dataset(
            self._store, evaluation, dataset, samples=samples, allow_changed=target.allow_changed
        ):
            if not chunk.new:
                journal.load(self._store, chunk.first, chunk.last)
                yield from rows.pending(evaluation.id, chunk.first, chunk.last)
            elif epochs == 1:
                yield from chunk.rows
            else:
                yield from (replace(row, sample=sample) for row in chunk.rows for sample in range(epochs))
            seen = chunk.last
        # Rows that are stored already, if the dataset need not be read again.
        for part in rows.pending_ranges(evaluation.id, _RANGE_ROWS, first=seen + 1):
            if samples is None or part.first < samples:
                last = part.last if samples is None else min(part.last, samples - 1)
                journal.load(self._store, part.first, last)
                yield from rows.pending(evaluation.id, part.first, last)

    def _end_by(self, error: BaseException) -> None:
        """Record how an error ends the evaluation. If all of its rows have a result nevertheless, it has completed."""
        ending = self._ending(error)
        if isinstance(error, TooManyErrorsError):
            self._store.evaluations.end(self._evaluation.id, ending)
        else:
            end_running(self._store, self._evaluation, ending)

    def _ending(self, error: BaseException) -> Ending:
        if isinstance(error, BudgetError):
            # Rows in flight have spent more since the first one was refused.
            stop = self._session.quota.stop
            stop = stop or used_up(self._store, self._session.experiment, self._options.config.budget)
            stop = stop or BudgetStop(EvaluationEnd.BUDGET_USED_UP, error.message)
            return Ending.at_budget(stop)
        if isinstance(error, TooManyErrorsError):
            return error.ending
        return ending_of(self._runnable, error)
