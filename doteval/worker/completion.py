"""The completion of one row task: its rows are recorded as they end, and it is complete when all are stored."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable

from doteval.coordination.call_journal import CallJournal
from doteval.core.experiments import Evaluation
from doteval.core.metering import UsageScope
from doteval.core.results import Outcome, Row, RowStatus
from doteval.core.wording import counted
from doteval.runner.inflight_calls import RowCounter
from doteval.store import GroupWriter, NewResult, ParkedRow
from doteval.supervision.usage_journal import UsageJournal
from doteval.worker.prefetch import PrefetchedRows


class RowTaskCompletion:
    """Counts the rows of one row task that have completed, and waits until all are stored. Safe to use from any thread.

    on_stored: called on the writer's thread for every outcome whose result is stored.
    journal: the call journal of its rows.
    parts: the number of assignments that the rows are divided into.
    unended: counts the rows until they are stored, or cannot be; None without a budget.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        writer: GroupWriter,
        on_stored: Callable[[Outcome], None],
        journal: CallJournal,
        usage_journal: UsageJournal,
        prefetched: PrefetchedRows,
        *,
        parts: int,
        unended: RowCounter | None,
    ) -> None:
        self._evaluation_uid = evaluation.uid
        self._journal = journal
        self._usage_journal = usage_journal
        self._prefetched = prefetched
        self._parts = parts
        self._unended = unended
        self._writer = writer
        self._on_stored = on_stored
        self._lock = threading.Lock()
        self._complete = threading.Event()
        self._unstored = 0
        self._cut: BaseException | None = None
        self._rows = 0
        self._not_done: Counter[RowStatus] = Counter()
        self._tokens = 0

    def record(self, row: Row, outcome: Outcome) -> None:
        """A row has completed: hand its result to the writer."""
        waits = outcome.status is RowStatus.PENDING
        new = self._journal.parked(row, outcome) if waits else self._journal.result(row, outcome)
        if isinstance(new, NewResult):
            outcome = new.outcome
        self._prefetched.row_completed()
        with self._lock:
            self._unstored += 1
            self._rows += 1
            if outcome.status is not RowStatus.DONE:
                self._not_done[outcome.status] += 1
            for usage in outcome.usage:
                self._tokens += usage.prompt_tokens + usage.completion_tokens
        if outcome.usage and new.execution is not None:
            # The store counts the usage of one execution once, also if the process dies before it knows of the commit.
            self._usage_journal.ended(self._usage_scope_of(row), new.execution)
        if self._unended is not None:
            self._unended.add(1)
        on_stored = functools.partial(self._stored, row, outcome)
        if isinstance(new, ParkedRow):
            self._writer.put_parked(new, on_stored)
        else:
            self._writer.put(new, on_stored)

    def ended(self, cut: BaseException | None) -> None:
        """One assignment has ended; `cut` is what ended it before its last row, None if nothing did."""
        with self._lock:
            self._parts -= 1
            self._cut = self._cut or cut
            self._check()

    def wait(self) -> BaseException | None:
        """Wait until every row has completed and is stored. Returns what cut the task short, None if nothing did."""
        self._complete.wait()
        return self._cut

    def summary(self) -> str:
        """The counts that Flower shows as the result of the row task: "12 rows, 2 failed, 5 k tokens"."""
        parts = [counted(self._rows, "row")]
        parts += [
            f"{self._not_done[status]} {status}"
            for status in (RowStatus.FAILED, RowStatus.SKIPPED)
            if self._not_done[status]
        ]
        if self._not_done[RowStatus.PENDING]:
            parts.append(f"{self._not_done[RowStatus.PENDING]} waiting for a batch")
        if self._tokens:
            parts.append(f"{_thousands(self._tokens)} {'token' if self._tokens == 1 else 'tokens'}")
        return ", ".join(parts)

    def _usage_scope_of(self, row: Row) -> UsageScope:
        return UsageScope(self._evaluation_uid, row.index, row.sample)

    def _stored(self, row: Row, outcome: Outcome, error: BaseException | None) -> None:
        if self._unended is not None:
            self._unended.add(-1)
        if error is None:
            if outcome.status is not RowStatus.PENDING:
                self._on_stored(outcome)
            if outcome.usage:
                self._usage_journal.stored(self._usage_scope_of(row))
        with self._lock:
            self._unstored -= 1
            self._cut = self._cut or error
            self._check()

    def _check(self) -> None:
        if not self._parts and not self._unstored:
            self._complete.set()


def _thousands(count: int) -> str:
    return str(count) if count < 1000 else f"{count / 1000:.0f} k"
