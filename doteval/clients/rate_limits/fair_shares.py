"""Divides a rate limit evenly between evaluations: start-time fair queueing (Goyal, Vin and Cheng 1996).

Each evaluation has a virtual time that grows with every request it may send, and none gets ahead of another one that
is waiting. ``rate_limit.lua`` repeats this code for Redis.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_FORGET_AFTER_SECONDS = 60.0


@dataclass(slots=True)
class Share:
    """One evaluation: its virtual time in requests, until when it counts as waiting, and when it last asked."""

    virtual_time: float = 0.0
    waits_until: float = 0.0
    last_asked: float = 0.0


@dataclass(slots=True)
class FairShares:
    """The shares of all evaluations that asked within the last minute.

    >>> shares = FairShares()
    >>> shares.of("a", now=0.0).waits_until = 5.0
    >>> shares.least_waiting_time("b", now=1.0)
    0.0
    """

    by_name: dict[str, Share] = field(default_factory=dict)

    def of(self, name: str, now: float) -> Share:
        """The share of an evaluation that asks now."""
        share = self.by_name.setdefault(name, Share())
        if share.waits_until <= now:
            # An evaluation that had nothing to send does not save up requests meanwhile.
            least = self.least_waiting_time(name, now)
            if least is not None:
                share.virtual_time = max(share.virtual_time, least)
        share.last_asked = now
        return share

    def least_waiting_time(self, name: str, now: float) -> float | None:
        """The least virtual time of the other evaluations that are waiting, None if none is."""
        return min(
            (share.virtual_time for other, share in self.by_name.items() if other != name and share.waits_until > now),
            default=None,
        )

    def forget_idle(self, now: float) -> None:
        """Drop the evaluations that have not asked for a minute."""
        self.by_name = {
            name: share for name, share in self.by_name.items() if now - share.last_asked < _FORGET_AFTER_SECONDS
        }
