"""A clock for tests of what happens in time."""

from __future__ import annotations


class Clock:
    """Seconds that pass when the test says so, and how often it was asked."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now
