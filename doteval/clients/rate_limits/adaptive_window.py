"""How many requests may be in flight: more while that helps, half when the server is overloaded.

One window for each process and (base URL, model). It only ever holds back what rows want to send, so it
matters where rows in flight are many. Additive waiting lists of several processes come to fair parts by
themselves, as the windows of TCP do.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# More than rows in flight are as a rule: the window matters once a server shows that it has too much to do.
_FIRST = 256
_MOST = 4096
# What doubling must bring in replies a second to be kept; noise of a heavy tail stays below.
_GAIN = 1.25
_ROUNDS_BEFORE_NEXT_TRY = 10
_LEAST_SAMPLES = 16
_ERROR_SHARE = 0.2
_LEAST_ERRORS = 3
# Failures with fewer requests in flight are not because of their number.
_FEW = 4
# How much of the limit that was too much is won back quickly.
_WON_BACK = 0.75


class AdaptiveWindow:
    """`limit` is how many requests may be in flight now. Not safe to use from several threads at once."""

    def __init__(self, *, first: int = _FIRST, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = first
        self.in_flight = 0
        self._clock = clock
        self._era = 0
        self._recover_to = 0
        self._before: tuple[int, float] | None = None
        self._rounds_to_wait = 0
        self._seen = self._errors = self._most_in_flight = 0
        self._settling = 1
        self._began = clock()

    def begun(self) -> int:
        """A request goes out. Returns what `ended` wants to know of it."""
        self.in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self.in_flight)
        return self._era

    def ended(self, era: int, *, failed: bool = False, overloaded: bool = False) -> None:
        """A request has come back: `failed` without a usable reply, `overloaded` since the server has too much to do.

        What began before the last halving says nothing about now.
        """
        self.in_flight -= 1
        if era != self._era:
            return
        self._seen += 1
        self._errors += failed
        rising = self._errors >= _LEAST_ERRORS and self._errors > _ERROR_SHARE * max(self._seen, _LEAST_SAMPLES)
        if (overloaded or rising) and self._most_in_flight >= _FEW:
            self._halve()
            return
        if not failed and not overloaded and self.limit < self._recover_to:
            self.limit += 1
        if self._seen == self._settling:
            # From here on the round shows what this limit does, not the one before.
            self._began = self._clock()
            self._errors = 0
        elif self._seen >= self._settling + max(self.limit, _LEAST_SAMPLES):
            self._end_round()

    def _end_round(self) -> None:
        rate = (self._seen - self._settling) / max(1e-6, self._clock() - self._began)
        if self._most_in_flight >= self.limit:
            if self._before is not None and rate < _GAIN * self._before[1]:
                self.limit = self._before[0]
                self._before = None
                self._rounds_to_wait = _ROUNDS_BEFORE_NEXT_TRY
            elif self._rounds_to_wait:
                self._rounds_to_wait -= 1
            else:
                self._before = (self.limit, rate)
                self.limit = min(_MOST, 2 * self.limit)
        self._begin_round()

    def _halve(self) -> None:
        # Half of what was in flight, which may be less than the limit.
        most = min(self.limit, self._most_in_flight)
        self.limit = max(_FEW // 2, most // 2)
        self._recover_to = int(_WON_BACK * most)
        self._era += 1
        self._before = None
        self._rounds_to_wait = _ROUNDS_BEFORE_NEXT_TRY
        self._begin_round()

    def _begin_round(self) -> None:
        self._seen = self._errors = 0
        self._most_in_flight = self.in_flight
        self._settling = max(1, min(self.in_flight, self.limit))
        self._began = self._clock()
