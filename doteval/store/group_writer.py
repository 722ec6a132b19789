"""Group commit: one thread writes the results of many rows in one transaction.

::

    put ──▶ waiting ──▶ group ──▶ one transaction ──▶ on_stored of each
     ▲ blocks while too many wait      │
     └─────────────────────────────────┘ retries for ever while the store is unavailable

While one transaction runs, the results of the next group come together.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from doteval.core import clocks
from doteval.core.results import Outcome, RowError, RowStatus
from doteval.errors import StoreError, UnstorableValueError
from doteval.store.calls import NewCall, encode_calls
from doteval.store.driver_errors import RefusedError
from doteval.store.result_rows import EncodedResult, NewResult, encode_result
from doteval.store.store import Store
from doteval.store.wanted_calls import ParkedRow

if TYPE_CHECKING:
    from tenacity import RetryCallState

OnStored = Callable[[BaseException | None], None]
OnCommit = Callable[[float], None]

_LOG = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(slots=True)
class _Entry:
    """A result with its calls, calls of a row that runs, or a row that waits with its calls."""

    result: NewResult | None
    calls: Sequence[NewCall]
    on_stored: OnStored | None
    parked: ParkedRow | None = None
    failure: BaseException | None = None


class GroupWriter:
    """Writes results, and calls of rows that run, in groups: all that wait, up to `group`, in one transaction.

    A result that cannot be stored is replaced by a failed one that says why; the others of its group are stored. While
    the store is unavailable (locked, disk full, connection lost), the writer retries with back-off and keeps every
    result; `healthy` and `last_error` report it.

    worker_id: the worker process that has the results, None if it has none.
    waiting: how many results may wait before `put` blocks.
    on_commit: called with the seconds that each transaction took.
    """

    def __init__(
        self,
        store: Store,
        worker_id: int | None,
        *,
        group: int = 2000,
        waiting: int = 5000,
        on_commit: OnCommit | None = None,
    ) -> None:
        self._store = store
        self.worker_id = worker_id
        self._group = group
        self._most_waiting = waiting
        self._on_commit = on_commit
        self._waiting: deque[_Entry] = deque()
        # One lock with a condition for each thing to wait for: new results, room for more, results that are settled.
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._settled_some = threading.Condition(lock)
        self._put = 0
        self._settled = 0
        self._closed = False
        self._unheard: BaseException | None = None
        self._fatal_error: BaseException | None = None
        self._last_error: str | None = None
        # Commands that only read start without it.
        from tenacity import Retrying, retry_if_exception, wait_random_exponential

        # Used by the writer's thread only.
        self._attempts = Retrying(
            retry=retry_if_exception(_can_pass),
            wait=wait_random_exponential(multiplier=0.1, max=_LONGEST_PAUSE_SECONDS),
            before_sleep=self._note,
            reraise=True,
        )
        self._thread = threading.Thread(target=self._work, name="doteval-writer", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """False while the store cannot be written."""
        return self._last_error is None

    @property
    def last_error(self) -> str | None:
        """Why the store cannot be written, None while it can."""
        return self._last_error

    @property
    def waiting(self) -> int:
        """The number of results that are put and not settled yet."""
        return self._put - self._settled

    def put(self, result: NewResult, on_stored: OnStored | None = None) -> None:
        """Give the writer a result to store. Blocks while too many wait.

        on_stored: called on the writer's thread, with None when the result is committed, or with the error that
            prevents it for good.

        Raises RuntimeError: the writer is closed, or its thread has died.
        """
        self._put_entry(_Entry(result, result.calls, on_stored))

    def put_calls(self, calls: Sequence[NewCall]) -> Future[None]:
        """Give the writer calls to store, of a row that has no result yet. Blocks while too many wait.

        Returns a future that is done when they are committed, or cannot be for good, which is logged. It cannot be
        cancelled.

        Raises RuntimeError: as `put` does.
        """
        stored: Future[None] = Future()
        stored.set_running_or_notify_cancel()

        def on_stored(error: BaseException | None) -> None:
            stored.set_result(None)
            if error is not None:
                _LOG.warning("calls of a row cannot be stored: %s", type(error).__name__)

        self._put_entry(_Entry(None, calls, on_stored))
        return stored

    def put_parked(self, row: ParkedRow, on_stored: OnStored) -> None:
        """Give the writer a row that waits for a batch. Otherwise as `put`.

        Raises RuntimeError: as `put` does.
        """
        self._put_entry(_Entry(None, row.calls, on_stored, row))

    def _put_entry(self, entry: _Entry) -> None:
        with self._arrived:
            if len(self._waiting) >= self._most_waiting and threading.current_thread() is not self._thread:
                self._room.wait_for(
                    lambda: len(self._waiting) < self._most_waiting or self._closed or self._fatal_error is not None
                )
            self._check_alive()
            if self._closed:
                raise RuntimeError("the writer of results is closed")
            self._waiting.append(entry)
            self._put += 1
            if len(self._waiting) == 1:
                self._arrived.notify()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all results put before are stored, or until `timeout` seconds are over. True if they are stored.

        Raises RuntimeError: the writer's thread has died. Raises the error of a result that was put without `on_stored`
        and could not be stored.
        """
        with self._settled_some:
            goal = self._put
            self._settled_some.wait_for(lambda: self._settled >= goal or self._fatal_error is not None, timeout)
            self._check_alive()
            if self._unheard is not None:
                failure, self._unheard = self._unheard, None
                raise failure
            return self._settled >= goal

    def close(self, timeout: float | None = None) -> bool:
        """Accept no more results, store those that wait, and end the thread. False if `timeout` seconds were too few.

        Raises the errors of `flush`.
        """
        with self._arrived:
            self._closed = True
            self._arrived.notify()
            self._room.notify_all()
        try:
            return self.flush(timeout)
        finally:
            self._thread.join(timeout)

    def _check_alive(self) -> None:
        if self._fatal_error is not None:
            raise RuntimeError("the writer of results has died") from self._fatal_error

    def _work(self) -> None:
        group: list[_Entry] = []
        try:
            while True:
                with self._arrived:
                    self._arrived.wait_for(lambda: self._waiting or self._closed)
                    group = [self._waiting.popleft() for _ in range(min(self._group, len(self._waiting)))]
                    self._room.notify_all()
                if not group:
                    return
                self._store_group(group)
                self._settle(group)
        except BaseException as error:  # noqa: BLE001 (passed on to callers that wait)
            with self._settled_some:
                self._fatal_error = error
                self._last_error = f"the writer of results has died: {type(error).__name__}"
                group += self._waiting
                self._waiting.clear()
                for entry in group:
                    entry.failure = entry.failure or error
                self._room.notify_all()
            self._settle(group)

    def _settle(self, group: Sequence[_Entry]) -> None:
        for entry in group:
            if entry.on_stored is not None:
                try:
                    entry.on_stored(entry.failure)
                except BaseException:  # noqa: BLE001 (logged)
                    # The results are settled, and the other callbacks must still be called.
                    _LOG.exception("a callback of the writer of results failed")
        with self._settled_some:
            for entry in group:
                if entry.on_stored is None and entry.failure is not None:
                    self._unheard = entry.failure
            self._settled += len(group)
            self._settled_some.notify_all()

    def _store_group(self, group: Sequence[_Entry]) -> None:
        """Store a group. An entry that cannot be stored for good gets the error as its `failure`."""
        try:
            results = [_encode(entry.result) for entry in group if entry.result is not None]
            parked = [entry.parked for entry in group if entry.parked is not None]
            self._write(results, [call for entry in group for call in entry.calls], parked)
        except Exception:  # noqa: BLE001 (each result is tried again)
            # One of them may be the cause, so each is stored alone.
            for entry in group:
                self._store_alone(entry)

    def _store_alone(self, entry: _Entry) -> None:
        if entry.calls:
            try:
                self._write([], entry.calls)
            except Exception as error:  # noqa: BLE001 (given to its callback, or logged)
                if entry.result is None:
                    entry.failure = error
                else:
                    # The result is worth more than its calls.
                    _LOG.warning("calls of a row cannot be stored: %s", type(error).__name__)
        if entry.parked is not None:
            try:
                self._write([], parked=[entry.parked])
            except Exception as error:  # noqa: BLE001 (given to its callback)
                entry.failure = error
        if entry.result is None:
            return
        try:
            self._write([_encode(entry.result)])
        except Exception as error:  # noqa: BLE001 (given to its callback)
            try:
                self._write([encode_result(_failed(entry.result, error))])
            except Exception as again:  # noqa: BLE001 (given to its callback)
                entry.failure = again

    def _write(
        self, results: Sequence[EncodedResult], calls: Sequence[NewCall] = (), parked: Sequence[ParkedRow] = ()
    ) -> None:
        began = clocks.monotonic()
        encoded = encode_calls(calls) if calls else None
        self._attempts(self._store.results.write_encoded, results, self.worker_id, encoded, parked)
        self._last_error = None
        if self._on_commit is not None:
            self._on_commit(clocks.monotonic() - began)

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        message = error.message if isinstance(error, StoreError) else str(error)
        if self._last_error is None and (not isinstance(error, StoreError) or error.say_once()):
            _LOG.warning("results wait, because %s", message)
        self._last_error = message


def _can_pass(error: BaseException) -> bool:
    """Whether the error can pass, so that a retry can help."""
    return isinstance(error, StoreError) and not isinstance(error, RefusedError)


def _encode(result: NewResult) -> EncodedResult:
    try:
        return encode_result(result)
    except UnstorableValueError as error:
        return encode_result(_failed(result, error))


def _failed(result: NewResult, error: Exception) -> NewResult:
    """A failed result in place of one that cannot be stored, with its usage and times."""
    outcome = result.outcome
    failed = Outcome(
        status=RowStatus.FAILED,
        started_at=outcome.started_at,
        seconds=outcome.seconds,
        error=RowError(type(error).__name__, f"the result of this row cannot be stored: {error}"),
        usage=outcome.usage,
    )
    return replace(result, outcome=failed)
