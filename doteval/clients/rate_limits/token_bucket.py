"""A token bucket that follows what the server reports of its own.

Levels and sizes count requests or tokens, rates are per second. ``rate_limit.lua`` repeats this code for Redis.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Holds what may be sent now of one kind, requests or tokens.

    `rate`: what the server allows a second as far as known, 0 if unknown; `size`: what the server lets accumulate;
    `sent`: all that was ever sent; `reported`: whether `rate` comes from the server's headers; `user_rate`: what the
    user allows a second, 0 for no limit.

    >>> bucket = TokenBucket()
    >>> bucket.set_user_rate(2.0)
    >>> bucket.speed(), bucket.capacity(), bucket.level
    (2.0, 2.0, 2.0)
    """

    rate: float = 0.0
    size: float = 0.0
    level: float = 0.0
    sent: float = 0.0
    reported: bool = False
    user_rate: float = 0.0

    def speed(self) -> float:
        """The lower of the server's and the user's rate; 0 without a limit."""
        if self.rate > 0 and self.user_rate > 0:
            return min(self.rate, self.user_rate)
        return max(self.rate, self.user_rate)

    def capacity(self) -> float:
        """How much may accumulate: as much as on the server, at most one second's worth where the user set a rate."""
        speed = self.speed()
        room = self.size if self.rate > 0 else speed
        if self.user_rate > 0:
            room = min(room, speed)
        return max(1.0, room)

    def reserve(self) -> float:
        """What stays in the bucket, because requests of other processes may not have reached the server yet."""
        if not self.reported:
            return 0.0
        room = self.capacity()
        return max(0.0, min(0.2 * room, room - 1.0, 0.5 * self.speed()))

    def set_user_rate(self, rate: float) -> None:
        """Apply the user's rate. A bucket that had no limit before starts full."""
        if rate != self.user_rate:
            fresh = self.user_rate == 0 and self.rate == 0
            self.user_rate = rate
            if fresh:
                self.level = self.capacity()

    def refill(self, seconds: float) -> None:
        """Add what `seconds` bring."""
        self.level = min(self.capacity(), self.level + self.speed() * seconds)

    def update_from_headers(self, limit: float, remaining: float, reset: float, stamp: float, age: float) -> None:
        """Follow the headers of a reply.

        They report what was left when the server received a request that was sent `age` seconds ago, when `sent` was
        `stamp` (-1 if unknown). `reset`: seconds until the whole `limit` is available again.
        """
        used = limit - remaining
        if reset > 0 and used >= max(2.0, 0.05 * limit):
            # Part of one request may have been refilled already; on average it is half of one.
            rate = (used - 0.5) / reset
            if not self.reported:
                self.level = 0.0
                self.rate = rate
            else:
                self.rate += 0.2 * (rate - self.rate)
            self.reported = True
        if not self.reported:
            return
        self.size = limit
        if stamp < 0:
            return
        guess = min(self.capacity(), remaining - (self.sent - stamp) + self.speed() * age)
        # Down at once, up slowly: a reply may have overtaken requests that were sent before it.
        self.level += (1.0 if guess < self.level else 0.2) * (guess - self.level)
