"""Tells how old the heartbeats of other processes are, by the time that passes for this process.

A time in the store and the database's clock tell it only while nobody sets that clock. So the difference counts once,
when a heartbeat is first seen, and never beyond what this process knows itself: a heartbeat that was not there at the
last look is younger than that look. From then on its age grows with the monotonic clock of this process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from doteval.core import clocks

# A process that has not been seen for so long is forgotten.
_FORGET_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Beat:
    """The last heartbeat of a process, as one look at the store finds it.

    beat_at: when it was, by the database's clock
    age: seconds since then, by the database's clock; anything, after that clock was set
    """

    worker_id: int
    beat_at: float
    age: float


@dataclass(slots=True)
class _Seen:
    """A heartbeat: how old it was when it was first seen, and when that was; `looked_at` is the last look at it."""

    beat_at: float
    age: float
    seen_at: float
    looked_at: float


class HeartbeatAges:
    """Remembers heartbeats from look to look. Safe to use from several threads.

    clock: returns seconds that only ever grow

    >>> ages = HeartbeatAges()
    >>> ages.look([Beat(7, 1_000.0, 0.5)], began=ages.now())
    >>> ages.age_of(Beat(7, 1_000.0, 3_600.5)) < 60
    True
    """

    def __init__(self, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[int, _Seen] = {}

    def now(self) -> float:
        """The time by this process's clock, to be given to `look`."""
        return self._clock()

    def look(self, beats: Iterable[Beat], *, began: float) -> None:
        """Take in what a look at the store has found. `began` is `now()` before it."""
        now = self._clock()
        with self._lock:
            for beat in beats:
                known = self._seen.get(beat.worker_id)
                if known is None:
                    # A heartbeat in the future is from before the database's clock was set back: as far back as that.
                    self._seen[beat.worker_id] = _Seen(beat.beat_at, abs(beat.age), now, began)
                elif known.beat_at != beat.beat_at:
                    age = min(max(0.0, beat.age), now - known.looked_at)
                    self._seen[beat.worker_id] = _Seen(beat.beat_at, age, now, began)
                else:
                    known.looked_at = began
            self._seen = {each: seen for each, seen in self._seen.items() if now - seen.looked_at < _FORGET_SECONDS}

    def age_of(self, beat: Beat) -> float:
        """The age of a heartbeat in seconds."""
        seen = self._same(beat)
        return abs(beat.age) if seen is None else seen.age + self._clock() - seen.seen_at

    def watched(self, beat: Beat) -> float:
        """For how many seconds this process has seen no heartbeat after this one."""
        seen = self._same(beat)
        return 0.0 if seen is None else self._clock() - seen.seen_at

    def younger_than(self, max_age: float) -> set[int]:
        """The processes whose last heartbeat is at most so many seconds old."""
        now = self._clock()
        with self._lock:
            return {each for each, seen in self._seen.items() if seen.age + now - seen.seen_at <= max_age}

    def forget(self, worker_ids: Iterable[int]) -> None:
        """Forget processes that have left."""
        with self._lock:
            for each in worker_ids:
                self._seen.pop(each, None)

    def _same(self, beat: Beat) -> _Seen | None:
        seen = self._seen.get(beat.worker_id)
        return seen if seen is not None and seen.beat_at == beat.beat_at else None
