"""Clocks that evaluation files cannot stop: freezegun, pytest-freezer and time-machine replace those of `time`.

They do so for the whole process, while rows are timed and heartbeats are due on other threads. freezegun replaces the
functions in every module that has them as names, so they are kept out of its sight as attributes of an object.
time-machine changes the functions themselves, and offers the real ones.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime


class _RealClocks:
    __slots__ = ("monotonic", "perf_counter", "time")

    def __init__(self) -> None:
        # If freezegun stopped the clock before this was imported, `time` has its functions already.
        given = sys.modules.get("freezegun.api")
        self.time = getattr(given, "real_time", time.time)
        self.monotonic = getattr(given, "real_monotonic", time.monotonic)
        self.perf_counter = getattr(given, "real_perf_counter", time.perf_counter)


_REAL = _RealClocks()
# macOS counts its sleep by the other one.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """The seconds since the epoch.

    >>> abs(now() - time.time()) < 60
    True
    """
    # Nobody travels while another thread is still importing time-machine, so that its module is not complete.
    hatch = getattr(sys.modules.get("time_machine"), "escape_hatch", None)
    seconds: float
    if hatch is not None:
        try:
            seconds = hatch.time.time()
        except ValueError:
            # Nobody travels now.
            pass
        else:
            return seconds
    seconds = _REAL.time()
    return seconds


def utc_now() -> datetime:
    """The moment, in UTC.

    >>> utc_now().tzinfo
    datetime.timezone.utc
    """
    return datetime.fromtimestamp(now(), UTC)


def monotonic() -> float:
    """The seconds of the clock that all processes of a machine share and nobody sets.

    >>> monotonic() <= monotonic()
    True
    """
    seconds: float = _REAL.monotonic()
    return seconds


def since_boot() -> float:
    """The seconds of a clock that all processes of a machine share, nobody sets, and that counts a machine's sleep.

    >>> since_boot() <= since_boot()
    True
    """
    return time.clock_gettime(_SINCE_BOOT)


def perf_counter() -> float:
    """The seconds of the most precise clock, for durations.

    >>> perf_counter() <= perf_counter()
    True
    """
    seconds: float = _REAL.perf_counter()
    return seconds
