"""A clock that tests move by hand."""

from __future__ import annotations


class Clock:
    """Returns the seconds that the test has set, and counts how often it was read (`asked`)."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now
