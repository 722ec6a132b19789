"""Landing: where the rows of one row task arrive when they have ended."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable

from doteval.core.experiments import Evaluation
from doteval.core.metering import Place
from doteval.core.results import Outcome, Row, RowStatus
from doteval.store import GroupWriter, NewResult, new_execution
from doteval.supervision.usage_journal import UsageJournal
from doteval.worker.prefetch import Lot


class Landing:
    """Where the rows of one row task arrive: counts them, and knows when all are stored."""

    def __init__(
        self,
        evaluation: Evaluation,
        writer: GroupWriter,
        on_stored: Callable[[Outcome], None],
        spending: UsageJournal | None,
        lot: Lot,
        *,
        parts: int,
    ) -> None:
        self._evaluation_id = evaluation.id
        self._evaluation_uid = evaluation.uid
        self._spending = spending
        self._lot = lot
        self._parts = parts
        self._writer = writer
        self._on_stored = on_stored
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._unstored = 0
        self._cut: BaseException | None = None
        self._rows = 0
        # How many of them are not done.
        self._others: Counter[RowStatus] = Counter()
        self._tokens = 0

    def record(self, row: Row, outcome: Outcome) -> None:
        last = self._lot.ended()
        with self._lock:
            self._unstored += 1
            self._rows += 1
            if outcome.status is not RowStatus.DONE:
                self._others[outcome.status] += 1
            for usage in outcome.usage:
                self._tokens += usage.prompt_tokens + usage.completion_tokens
        execution = new_execution()
        if self._spending is not None and outcome.usage:
            # Under this name its usage counts once, though the process may die before it knows that it is stored.
            self._spending.ended(self._place_of(row), execution)
        new = NewResult(self._evaluation_id, row, outcome, execution)
        self._writer.put(new, functools.partial(self._stored, row, outcome), last=last)

    def ended(self, cut: BaseException | None) -> None:
        with self._lock:
            self._parts -= 1
            self._cut = self._cut or cut
            self._look()

    def wait(self) -> BaseException | None:
        """Wait until every row has ended and is stored. Returns what cut the assignment short."""
        self._over.wait()
        return self._cut

    def summary(self) -> str:
        parts = [f"{self._rows} rows"]
        parts += [
            f"{self._others[status]} {status}"
            for status in (RowStatus.FAILED, RowStatus.SKIPPED)
            if self._others[status]
        ]
        if self._tokens:
            parts.append(f"{_thousands(self._tokens)} tokens")
        return ", ".join(parts)

    def _place_of(self, row: Row) -> Place:
        return Place(self._evaluation_uid, row.index, row.sample)

    def _stored(self, row: Row, outcome: Outcome, error: BaseException | None) -> None:
        if error is None:
            self._on_stored(outcome)
            if self._spending is not None and outcome.usage:
                self._spending.stored(self._place_of(row))
        with self._lock:
            self._unstored -= 1
            self._cut = self._cut or error
            self._look()

    def _look(self) -> None:
        if not self._parts and not self._unstored:
            self._over.set()


def _thousands(count: int) -> str:
    return str(count) if count < 1000 else f"{count / 1000:.0f} k"
