"""Group commit: the results of many rows in one transaction, on one thread.

::

    put ──▶ waiting ──▶ group ──▶ one transaction ──▶ on_stored of each
     ▲ blocks while too many wait      │
     └─────────────────────────────────┘ a store that cannot be used is tried again for ever

Unless results are rare, the first of a group waits a moment for others: a transaction costs as much as some thirty
results.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from doteval.core.results import Outcome, RowError, RowStatus
from doteval.errors import StoreError, UnstorableValueError
from doteval.store.driver_errors import RefusedError
from doteval.store.result_rows import EncodedResult, NewResult, encode_result
from doteval.store.store import Store

OnStored = Callable[[BaseException | None], None]
OnCommit = Callable[[float], None]

_LOG = logging.getLogger(__name__)

_LONGEST_PAUSE = 5.0
# Seconds that the first result of a group waits for others, if so many a second are coming; if fewer, it waits longer,
# but not with the last one of its row task, whose place in the broker it would keep. Of rare results each is stored
# at once: what is not stored yet is run again if the process dies.
_LINGER = 0.05
_MANY_A_SECOND = 150
_LONG_LINGER = 0.25
_SOME_A_SECOND = 12
# Seconds over which that is looked at, at least: rows that began together end together, and are no stream for it.
_RATE_SECONDS = 0.25


@dataclass(slots=True)
class _Entry:
    result: NewResult
    on_stored: OnStored | None
    failure: BaseException | None = None


class GroupWriter:
    """Writes results in groups: everything that waits, up to `group`, in one transaction.

    A result that cannot be stored becomes a failed one that says why, and harms no other. While the store
    cannot be used (locked, disk full, connection lost) the writer tries again with growing pauses, and
    keeps everything; `healthy` and `last_error` tell. `on_commit` is called with the seconds that a group took.
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
        self._worker_id = worker_id
        self._group = group
        self._most_waiting = waiting
        self._on_commit = on_commit
        self._waiting: deque[_Entry] = deque()
        # One lock, and who waits for what: results for the writer, room for more, results that are settled.
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._landed = threading.Condition(lock)
        self._put = 0
        # Up to which of them somebody waits in `flush`, and which was the last one of a row task.
        self._hurry = 0
        self._last_of_task = 0
        # How many results had been put at a moment a while ago, and how long a group waits at the rate since then.
        self._mark = time.monotonic(), 0
        self._linger = 0.0
        self._settled = 0
        self._closed = False
        self._unheard: BaseException | None = None
        self._death: BaseException | None = None
        self._last_error: str | None = None
        # For the writer's thread only.
        self._attempts = Retrying(
            retry=retry_if_exception(_passes),
            wait=wait_random_exponential(multiplier=0.1, max=_LONGEST_PAUSE),
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
        """How many results were put and are not settled yet."""
        return self._put - self._settled

    def put(self, result: NewResult, on_stored: OnStored | None = None, *, last: bool = False) -> None:
        """Hand over a result. Blocks while too many wait.

        `on_stored` is called on the writer's thread: with None when the result is committed, or with
        what prevented that for good. `last`: it is the last one of its row task, which waits for nothing else.

        Raises RuntimeError after `close`, or if the writer's thread has died.
        """
        with self._arrived:
            if len(self._waiting) >= self._most_waiting and threading.current_thread() is not self._thread:
                self._room.wait_for(
                    lambda: len(self._waiting) < self._most_waiting or self._closed or self._death is not None
                )
            self._check_alive()
            if self._closed:
                raise RuntimeError("the writer of results is closed")
            self._waiting.append(_Entry(result, on_stored))
            self._put += 1
            if last:
                self._last_of_task = self._put
            # The writer sleeps until there is something, and then until a group is full or time is up.
            if len(self._waiting) in (1, self._group) or (last and self._linger > _LINGER):
                self._arrived.notify()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything that was put before is stored, at most `timeout` seconds. False: not yet.

        Raises what prevented a result that was put without `on_stored`, RuntimeError if the thread has died.
        """
        with self._landed:
            goal = self._hurry = self._put
            self._arrived.notify()
            self._landed.wait_for(lambda: self._settled >= goal or self._death is not None, timeout)
            self._check_alive()
            if self._unheard is not None:
                failure, self._unheard = self._unheard, None
                raise failure
            return self._settled >= goal

    def close(self, timeout: float | None = None) -> bool:
        """Take no more results, store what waits, and end the thread. False: it was not done in `timeout` seconds.

        Raises what `flush` raises.
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
        if self._death is not None:
            raise RuntimeError("the writer of results has died") from self._death

    def _work(self) -> None:
        group: list[_Entry] = []
        try:
            while True:
                with self._arrived:
                    self._arrived.wait_for(lambda: self._waiting or self._closed)
                    if linger := self._linger_now():
                        self._arrived.wait_for(self._is_time, linger)
                    group = [self._waiting.popleft() for _ in range(min(self._group, len(self._waiting)))]
                    self._room.notify_all()
                if not group:
                    return
                self._store_group(group)
                self._settle(group)
        except BaseException as death:  # noqa: BLE001 (the waiting ones must hear of it, whatever it is)
            with self._landed:
                self._death = death
                self._last_error = f"the writer of results has died: {type(death).__name__}"
                group += self._waiting
                self._waiting.clear()
                for entry in group:
                    entry.failure = entry.failure or death
                self._room.notify_all()
            self._settle(group)

    def _linger_now(self) -> float:
        """Seconds that the next group waits, as fast as results have come lately."""
        since, before = self._mark
        seconds = time.monotonic() - since
        if seconds >= _RATE_SECONDS:
            self._linger = linger_at(self._put - before, seconds)
            self._mark = since + seconds, self._put
        return self._linger

    def _is_time(self) -> bool:
        """Whether what waits is to be stored at once: a full group, or somebody waits for it."""
        awaited = self._hurry if self._linger <= _LINGER else max(self._hurry, self._last_of_task)
        return len(self._waiting) >= self._group or self._closed or self._settled < awaited

    def _settle(self, group: Sequence[_Entry]) -> None:
        for entry in group:
            if entry.on_stored is not None:
                try:
                    entry.on_stored(entry.failure)
                except BaseException:  # noqa: BLE001 (logged)
                    # The results are settled, and the callbacks of the others must be called.
                    _LOG.exception("a callback of the writer of results failed")
        with self._landed:
            for entry in group:
                if entry.on_stored is None and entry.failure is not None:
                    self._unheard = entry.failure
            self._settled += len(group)
            self._landed.notify_all()

    def _store_group(self, group: Sequence[_Entry]) -> None:
        """Store a group, and note at its entries what failed for good."""
        try:
            self._write([_encode(entry.result) for entry in group])
        except Exception as error:  # noqa: BLE001 (given to its callback)
            if len(group) > 1:
                # One of them is to blame: each on its own, then.
                for entry in group:
                    self._store_group([entry])
                return
            try:
                self._write([encode_result(_failed(group[0].result, error))])
            except Exception as again:  # noqa: BLE001 (given to its callback)
                group[0].failure = again

    def _write(self, encoded: Sequence[EncodedResult]) -> None:
        began = time.monotonic()
        self._attempts(self._store.results.write_encoded, encoded, self._worker_id)
        self._last_error = None
        if self._on_commit is not None:
            self._on_commit(time.monotonic() - began)

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        message = error.message if isinstance(error, StoreError) else str(error)
        if self._last_error is None:
            _LOG.warning("results wait, since %s", message)
        self._last_error = message


def linger_at(results: int, seconds: float) -> float:
    """Seconds that a group waits where so many results came in so many `seconds`; 0 if each is stored at once."""
    if results >= _MANY_A_SECOND * seconds:
        return _LINGER
    return _LONG_LINGER if results >= _SOME_A_SECOND * seconds else 0.0


def _passes(error: BaseException) -> bool:
    """Whether trying again can help."""
    return isinstance(error, StoreError) and not isinstance(error, RefusedError)


def _encode(result: NewResult) -> EncodedResult:
    try:
        return encode_result(result)
    except UnstorableValueError as error:
        return encode_result(_failed(result, error))


def _failed(result: NewResult, error: Exception) -> NewResult:
    """The result of a row whose outcome cannot be stored: what it used and how long it took stay."""
    outcome = result.outcome
    failed = Outcome(
        status=RowStatus.FAILED,
        started_at=outcome.started_at,
        seconds=outcome.seconds,
        error=RowError(type(error).__name__, f"the result of this row cannot be stored: {error}"),
        usage=outcome.usage,
    )
    return replace(result, outcome=failed)
