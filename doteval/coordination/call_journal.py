"""Gives rows their parts of the call journal, and has the calls stored that are noted there."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from doteval.core.call_journal import FinishedCall, JournalMode, RecordedCall, RowCalls
from doteval.core.experiments import Evaluation
from doteval.core.parking import Parking
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus
from doteval.core.wording import counted
from doteval.store import GroupWriter, NewCall, NewResult, ParkedRow, Store, new_execution

# A row whose last execution has not asked for so many replies of batches is given up.
_MOST_UNASKED = 5


class CallJournal:
    """The call journal of the rows of one evaluation that a process runs. Safe to use from threads."""

    def __init__(self, evaluation: Evaluation, writer: GroupWriter) -> None:
        self._evaluation = evaluation
        self._writer = writer
        self._mode = evaluation.config.journal
        self._rescoring = evaluation.config.rescoring
        # The name of the evaluation is no secret, but nobody can look digests up that were made for another one.
        self._key = (self._rescoring.sources[-1] if self._rescoring else evaluation.uid).encode()
        self._lock = threading.Lock()
        self._recorded: dict[tuple[int, int], Sequence[RecordedCall]] = {}
        self._open: dict[tuple[int, int], RowCalls] = {}
        self._repaid = 0
        self._in_batches = evaluation.config.batch
        self._live: dict[tuple[int, int], set[tuple[bytes, int]]] = {}

    @property
    def calls_of(self) -> Callable[[Row], RowCalls] | None:
        """Makes the part of a row that begins; None if nothing is to be stored."""
        return None if self._mode is JournalMode.OFF else self._calls_of

    def load(self, store: Store, first: int, last: int) -> None:
        """Load the calls that pending rows from `first` to `last` (included) may replay. Raises StoreError."""
        if self._mode is not JournalMode.FULL:
            return
        found = store.calls.unfinished(self._evaluation.id, first, last, failed=self._evaluation.config.replay)
        recorded = {key: list(calls) for key, calls in found.items()}
        for uid in self._rescoring.sources if self._rescoring else ():
            for key, calls in store.calls.recorded(uid, first, last).items():
                recorded.setdefault(key, []).extend(calls)
        live = store.wanted.live(self._evaluation.id, first, last) if self._in_batches else {}
        with self._lock:
            self._recorded.update(recorded)
            self._live.update(live)

    def result(self, row: Row, outcome: Outcome) -> NewResult:
        """The result of a row that has ended, with those of its calls that are not stored yet.

        It has failed if a call was not recorded, whatever the row has made of that.
        """
        with self._lock:
            calls = self._open.pop((row.index, row.sample), None)
        if calls is None:
            return NewResult(self._evaluation.id, row, outcome, new_execution())
        kept = self._new(row.index, row.sample, calls.execution, calls.close(has_result=True))
        if calls.refused is not None:
            refused = calls.refused
            error = RowError(type(refused).__name__, str(refused), ErrorClass.EVALUATION, refused.difference)
            outcome = replace(outcome, status=RowStatus.FAILED, scores=(), error=error)
        if calls.differs:
            with self._lock:
                self._repaid += 1
        return NewResult(self._evaluation.id, row, outcome, calls.execution, kept)

    def parked(self, row: Row, outcome: Outcome) -> ParkedRow | NewResult:
        """What to store of a row that waits for a batch; a failed result if it asks something else each time.

        Such a row would wait, and pay, for ever.
        """
        with self._lock:
            calls = self._open[row.index, row.sample]
        parking = calls.parking
        assert parking is not None
        if calls.unasked >= _MOST_UNASKED:
            unasked = counted(calls.unasked, "reply", "replies")
            message = (
                f"this row asks something else each time it runs: {unasked} of batches were not asked for again. In "
                "batch mode the code before a call runs several times: leave times, random numbers and the like out of "
                "prompts, or run it without --batch."
            )
            error = RowError("NotRepeatable", message)
            return self.result(row, replace(outcome, status=RowStatus.FAILED, error=error))
        with self._lock:
            del self._open[row.index, row.sample]
        kept = self._new(row.index, row.sample, calls.execution, calls.close(has_result=False))
        where = (self._evaluation.id, row.index, row.sample)
        return ParkedRow(*where, calls.execution, parking.wanted, tuple(outcome.usage), kept)

    def close(self, store: Store) -> None:
        """Store the calls of rows that have begun and not ended, and how many rows have paid again.

        Raises StoreError.
        """
        with self._lock:
            left, self._open = self._open, {}
            repaid, self._repaid = self._repaid, 0
        for (index, sample), calls in left.items():
            kept = calls.close(has_result=False)
            if kept:
                self._writer.put_calls(self._new(index, sample, calls.execution, kept))
        if repaid:
            store.calls.note_repaid(self._evaluation.id, repaid)

    def _calls_of(self, row: Row) -> RowCalls:
        execution = new_execution()
        key = (row.index, row.sample)
        put = functools.partial(self._put, row.index, row.sample, execution)
        with self._lock:
            recorded = self._recorded.pop(key, ())
            parking = Parking(self._live.pop(key, ())) if self._in_batches else None
            calls = self._open[key] = RowCalls(
                self._mode, execution, self._key, put, recorded, self._rescoring, parking
            )
        return calls

    def _put(self, index: int, sample: int, execution: int, calls: Sequence[FinishedCall]) -> Future[None]:
        return self._writer.put_calls(self._new(index, sample, execution, calls))

    def _new(self, index: int, sample: int, execution: int, calls: Sequence[FinishedCall]) -> tuple[NewCall, ...]:
        return tuple(NewCall(self._evaluation.id, index, sample, execution, call) for call in calls)
