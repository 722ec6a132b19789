"""Group commit: results of many rows in one transaction, on one thread."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from doteval.errors import StoreError, UnstorableValueError
from doteval.results import Outcome, RowError, RowStatus
from doteval.store.store import Store
from doteval.store.writing import EncodedResult, NewResult, encode_result

OnStored = Callable[[BaseException | None], None]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0


class GroupWriter:
    """Writes results in groups: all that wait, up to `group`, in one transaction each.

    `put` blocks while `waiting` results wait. A store that cannot be used is tried again for ever, with
    pauses that grow; nothing is dropped. `healthy` and `last_error` say how that goes.
    """

    def __init__(self, store: Store, worker_id: int | None, *, group: int = 500, waiting: int = 5000) -> None:
        self._store = store
        self._worker_id = worker_id
        self._group = group
        self._most_waiting = waiting
        self._waiting: deque[tuple[NewResult, OnStored | None]] = deque()
        self._changed = threading.Condition()
        self._put = 0
        self._settled = 0
        self._closed = False
        self._broken: BaseException | None = None
        self.last_error: str | None = None
        self._thread = threading.Thread(target=self._work, name="doteval-writer", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """False while the store cannot be written, and after the thread has died."""
        return self.last_error is None

    def put(self, result: NewResult, on_stored: OnStored | None = None) -> None:
        """Hand over a result; `on_stored` is called on the writer's thread, with None once it is committed.

        Raises RuntimeError after `close`, or if the thread has died.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._most_waiting or self._closed or self._broken)
            if self._broken is not None:
                raise RuntimeError("the writer of results has died") from self._broken
            if self._closed:
                raise RuntimeError("the writer of results is closed")
            self._waiting.append((result, on_stored))
            self._put += 1
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything put so far is stored.

        Raises RuntimeError if the thread has died.
        """
        with self._changed:
            goal = self._put
            self._changed.wait_for(lambda: self._settled >= goal or self._broken)
            if self._broken is not None:
                raise RuntimeError("the writer of results has died") from self._broken

    def close(self) -> None:
        """Store what waits, and end the thread. Does nothing the second time."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                taken = [self._waiting.popleft() for _ in range(min(self._group, len(self._waiting)))]
                self._changed.notify_all()
            if not taken:
                return
            failure = self._store_group([result for result, _ in taken])
            for _, on_stored in taken:
                if on_stored is not None:
                    on_stored(failure)
            with self._changed:
                self._settled += len(taken)
                self._changed.notify_all()

    def _store_group(self, results: list[NewResult]) -> BaseException | None:
        pause = _FIRST_PAUSE
        try:
            encoded = [_encode_or_fail(result) for result in results]
            while True:
                try:
                    self._store.results.write_encoded(encoded, self._worker_id)
                except StoreError as error:
                    self.last_error = error.message
                    threading.Event().wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
                    pause = min(pause * 2, _LONGEST_PAUSE)
                else:
                    self.last_error = None
                    return None
        except Exception as error:  # noqa: BLE001 (handed to the callbacks)
            return error


def _encode_or_fail(result: NewResult) -> EncodedResult:
    try:
        return encode_result(result)
    except UnstorableValueError as error:
        outcome = result.outcome
        failed = Outcome(
            status=RowStatus.FAILED,
            started_at=outcome.started_at,
            seconds=outcome.seconds,
            error=RowError(type(error).__name__, str(error)),
            usage=outcome.usage,
        )
        return encode_result(replace(result, outcome=failed))
