"""Computes what takes longer than a page may, once for all visitors, on a thread of its own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from doteval.core import clocks
from doteval.store import Store
from doteval.view.time_shares import TimeShare, work_clock

Value = TypeVar("Value")

# Results that are kept, those asked for last.
_MOST_KEPT = 200
# Seconds after which what has failed is tried again, if somebody asks for it.
_RETRY_SECONDS = 30.0
# Seconds that a page waits for a result.
_WAIT_SECONDS = 0.25
# A result that takes so long to read is used for so many times as long: readers get at most a part of a processor.
_SHARE = 30
_LEAST_SECONDS = 0.5
# One that is older than this is read before it is shown; until then, it is shown while it is read again.
_OLDEST_SECONDS = 60.0


class Calculations:
    """Computes values in the background and keeps them.

    store: gives its transactions more time than that of pages has. What was computed of another file at its path, such
        as one that was deleted, is not used.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # One thread: what is computed here takes all of a processor, and pages need the other.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="doteval-calculations")
        self._refresher = ThreadPoolExecutor(1, thread_name_prefix="doteval-refresher")
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _Computation] = OrderedDict()
        self._fresh: OrderedDict[Hashable, _Recent] = OrderedDict()
        # Of subjects that are running: the last values, and the time that they take.
        self._latest: OrderedDict[Hashable, _Computation] = OrderedDict()
        self._share = TimeShare()

    def get(
        self,
        subject: Hashable,
        state: Hashable,
        compute: Callable[[Store], Value],
        *,
        running: bool = False,
        waits: bool = True,
    ) -> Value | None:
        """The value of a subject in a state, None while it is being computed. Raises what `compute` raises.

        state: what the value depends on: in another state it is computed anew.
        running: whether the state changes all the time. The value is then that of an earlier state until there is
            another one, and all such values are computed in a share of the time.
        waits: whether to wait a moment for it, so that most pages never have to say that something is not there yet.
        """
        subject = (self._store.file, subject)
        key = (subject, state)
        with self._lock:
            earlier = self._latest.get(subject) if running else None
            found = self._kept.get(key)
            if found is None or found.is_to_be_tried_again():
                if earlier is not None and clocks.monotonic() < earlier.ended_at + self._share.interval():
                    found = earlier
                else:
                    found = self._kept[key] = _Computation(self._executor, compute, self._store)
                    _keep_most(self._kept)
            if key in self._kept:
                self._kept.move_to_end(key)
        future = found.future
        wait((future,), _WAIT_SECONDS if waits and earlier is None else 0.0)
        if not future.done() or future.cancelled():
            return None if earlier is None else earlier.future.result()
        value: Value = future.result()
        if running and found is not earlier:
            with self._lock:
                self._latest[subject] = found
                self._latest.move_to_end(subject)
                _keep_most(self._latest)
                self._share.note(subject, found.seconds, least=_LEAST_SECONDS)
        return value

    def recent(self, key: Hashable, read: Callable[[], Value]) -> Value:
        """What `read` returns, or returned a moment ago, so that visitors share it.

        Nobody but the first visitor waits for it: it is read again in the background.
        """
        key = (self._store.file, key)
        with self._lock:
            recent = self._fresh.setdefault(key, _Recent())
            self._fresh.move_to_end(key)
            if len(self._fresh) > _MOST_KEPT:
                self._fresh.popitem(last=False)
        value: Value = recent.get(read, self._refresher)
        return value

    def close(self) -> None:
        """Forget what is not begun, and wait for the rest."""
        for executor in (self._executor, self._refresher):
            executor.shutdown(cancel_futures=True)


class _Computation:
    """A value that is being computed, or was. `seconds` is the work that it took, by `work_clock`."""

    def __init__(self, executor: ThreadPoolExecutor, compute: Callable[[Store], Any], store: Store) -> None:
        self.ended_at = float("inf")
        self.seconds = 0.0
        self.future: Future[Any] = executor.submit(self._compute, compute, store)

    def is_to_be_tried_again(self) -> bool:
        """Whether it was given up, or has failed some time ago: until then everybody gets the error."""
        if not self.future.done():
            return False
        if self.future.cancelled():
            return True
        return self.future.exception() is not None and clocks.monotonic() >= self.ended_at + _RETRY_SECONDS

    def _compute(self, compute: Callable[[Store], Any], store: Store) -> Any:
        clock = work_clock(store)
        began = clock()
        try:
            return compute(store)
        finally:
            self.ended_at = clocks.monotonic()
            self.seconds = clock() - began


def _keep_most(computations: OrderedDict[Hashable, _Computation]) -> None:
    """Forget those that were asked for longest ago, and give up what is still to be computed of them."""
    while len(computations) > _MOST_KEPT:
        _, oldest = computations.popitem(last=False)
        oldest.future.cancel()


class _Recent:
    """A value that is read again when it has become old."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = self._until = float("-inf")
        self._value: Any = None
        self._refresh: Future[None] | None = None

    def get(self, read: Callable[[], Any], refresher: ThreadPoolExecutor) -> Any:
        with self._lock:
            now = clocks.monotonic()
            if now >= self._read_at + _OLDEST_SECONDS:
                self._renew(read)
            elif now >= self._until and (self._refresh is None or self._refresh.done()):
                self._refresh = refresher.submit(self._renew, read)
            return self._value

    def _renew(self, read: Callable[[], Any]) -> None:
        began = clocks.monotonic()
        value = read()
        now = clocks.monotonic()
        # The refresher changes them one after another; a visitor who reads the value in between has the new one.
        self._value, self._read_at = value, began
        self._until = now + max(_LEAST_SECONDS, _SHARE * (now - began))
