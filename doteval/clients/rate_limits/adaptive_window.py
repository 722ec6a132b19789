"""How many requests may be in flight: more while that brings more replies, half when the server is overloaded.

One window for each process and (base URL, model). It only holds requests back that rows want to send, so it matters
when many rows are in flight. The windows of several processes converge to fair parts by themselves, as those of TCP do.
"""

from __future__ import annotations

from collections.abc import Callable

from doteval.core import clocks

# More than the usual number of rows in flight: the window matters only once a server shows that it is overloaded.
_FIRST = 256
_MOST = 4096
# A doubled window is kept if replies a second grow by this factor; the noise of slow replies stays below it.
_GAIN = 1.25
_ROUNDS_BEFORE_NEXT_TRY = 10
_LEAST_SAMPLES = 16
_ERROR_SHARE = 0.2
_LEAST_ERRORS = 3
# With fewer requests in flight, failures are not caused by their number.
_FEW = 4
# The part of the overloading number of requests that is regained by one request a reply; beyond it, a round at a time.
_QUICKLY_REGAINED = 0.75


class AdaptiveRequestWindow:
    """Limits the requests in flight to `limit`, which it adapts. Not safe to use from several threads at once.

    `first`: the limit to start with; `clock`: seconds.

    >>> window = AdaptiveRequestWindow(first=8)
    >>> requests = [window.begin() for _ in range(8)]
    >>> window.end(requests[0], overloaded=True)
    >>> window.limit
    4
    """

    def __init__(self, *, first: int = _FIRST, clock: Callable[[], float] = clocks.monotonic) -> None:
        self.limit = first
        self.in_flight = 0
        self._clock = clock
        self._era = 0
        self._recover_to = 0
        self._before_doubling: tuple[int, float] | None = None
        self._rounds_to_wait = 0
        self._seen = self._errors = self._most_in_flight = 0
        self._settling = 1
        self._began = clock()

    def begin(self) -> int:
        """Count a request that is sent. Returns its era, for `end`."""
        self.in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self.in_flight)
        return self._era

    def end(self, era: int, *, failed: bool = False, overloaded: bool = False) -> None:
        """Count the end of a request: `failed` without a usable reply, `overloaded` if the server had too many.

        An era ends with each halving. A request of an earlier era does not change the limit.
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
            # All requests that end from here on were sent under this limit, so the measurement starts here.
            self._began = self._clock()
            self._errors = 0
        elif self._seen >= self._settling + max(self.limit, _LEAST_SAMPLES):
            self._end_round()

    def _end_round(self) -> None:
        rate = (self._seen - self._settling) / max(1e-6, self._clock() - self._began)
        if self._most_in_flight >= self.limit:
            if self._before_doubling is not None and rate < _GAIN * self._before_doubling[1]:
                self.limit = self._before_doubling[0]
                self._before_doubling = None
                self._rounds_to_wait = _ROUNDS_BEFORE_NEXT_TRY
            elif self._rounds_to_wait:
                self._rounds_to_wait -= 1
            else:
                self._before_doubling = (self.limit, rate)
                self.limit = min(_MOST, 2 * self.limit)
        self._begin_round()

    def _halve(self) -> None:
        # Half of what was in flight, which may be less than the limit.
        most = min(self.limit, self._most_in_flight)
        self.limit = max(_FEW // 2, most // 2)
        self._recover_to = int(_QUICKLY_REGAINED * most)
        self._era += 1
        self._before_doubling = None
        self._rounds_to_wait = _ROUNDS_BEFORE_NEXT_TRY
        self._begin_round()

    def _begin_round(self) -> None:
        self._seen = self._errors = 0
        self._most_in_flight = self.in_flight
        self._settling = max(1, min(self.in_flight, self.limit))
        self._began = self._clock()
