"""The rate limit of one (base URL, model): what may be sent now, following what the server says of its limits.

Two token buckets, of requests and of tokens, mirror the server's own. A server that reports in headers what is left
sets their rate and level. The rate of one that only rejects is learned: after a 429 a little less than what it
accepted, then slowly more until the next 429. `RedisRateLimits` runs the same algorithm in Lua (``rate_limit.lua``) for
all worker processes; a test compares the two step by step (test_rate_limit_lua).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from doteval.clients.rate_limits.fair_shares import FairShares, Share
from doteval.clients.rate_limits.token_bucket import TokenBucket
from doteval.core import clocks

# Message, answer and state are plain JSON, because Lua reads and writes them too.
Message = Mapping[str, Any]
"""``user_rates``: requests and tokens a second that the user allows (0: no limit); ``asks``: for each evaluation its
name, how many requests it wants to send, and their tokens; and observations since the last message: ``ok`` (number of
replies), ``tokens`` (used beyond the estimates), ``rejected`` ([seconds to wait or -1, stamp, whether headers reported
the limit]), ``left`` and ``tokens_left`` ([limit, remaining, reset, stamp, age])."""

Answer = dict[str, Any]
"""``grants``: how many requests each of the asks may send; ``wait``: seconds until asking again makes sense; ``sent``
and ``tokens_sent``: counters, whose value is the stamp of the last request granted; ``limited``: whether there is a
limit at all."""

_BLOCKED_AT_MOST_SECONDS = 120.0
_SETTLING_SECONDS = 1.0


class RateLimits(Protocol):
    """Rate limits by key."""

    def step(self, messages: Sequence[tuple[str, Message]]) -> list[Answer]:
        """One answer for each key and message. Raises ResourceError if the limits cannot be reached."""

    def close(self) -> None:
        """Close connections."""


class LocalRateLimits:
    """Rate limits that only this process keeps.

    >>> LocalRateLimits().step([("key", {"user_rates": [0, 0], "asks": [["eval_a", 3, 0]]})])[0]["grants"]
    [3]
    """

    def __init__(self, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._clock = clock
        self._limits: dict[str, RateLimit] = {}

    def step(self, messages: Sequence[tuple[str, Message]]) -> list[Answer]:
        """One answer for each key and message."""
        now = self._clock()
        return [self._limits.setdefault(key, RateLimit()).step(now, message) for key, message in messages]

    def close(self) -> None:
        """Forget all limits."""
        self._limits.clear()


@dataclass(slots=True)
class RateLimit:
    """See the module's docstring. Times are seconds of any clock that grows.

    `cut_at` and `cut_stamp`: when a rejection last lowered the rate, and what had been sent then; `ceiling`: the rate
    at which it was rejected; `careful`: whether a learned rate has been rejected before; `window_*` and `accepted`:
    replies a second, measured over one second; `scarce`: whether the last ask was granted less than it wanted.
    """

    requests: TokenBucket = field(default_factory=TokenBucket)
    tokens: TokenBucket = field(default_factory=TokenBucket)
    at: float = 0.0
    blocked_until: float = 0.0
    cut_stamp: float = 0.0
    cut_at: float = 0.0
    ceiling: float = 0.0
    careful: bool = False
    window_at: float = 0.0
    window_count: float = 0.0
    accepted: float = 0.0
    scarce: bool = False
    shares: FairShares = field(default_factory=FairShares)

    def step(self, now: float, message: Message) -> Answer:
        """Take the observations of a message in, and answer its asks."""
        if self.at == 0.0:
            self.at = self.window_at = now
        passed = max(0.0, now - self.at)
        self.at = max(now, self.at)
        now = self.at
        user_rates = message["user_rates"]
        self.requests.set_user_rate(user_rates[0])
        self.tokens.set_user_rate(user_rates[1])
        self._grow(passed)
        self.requests.refill(passed)
        self.tokens.refill(passed)
        self._observe(now, message)
        return self._grant(now, message["asks"])

    def _grow(self, passed: float) -> None:
        """Raise a rate that was learned from rejections while it holds requests back."""
        bucket = self.requests
        if bucket.rate <= 0 or bucket.reported or not self.scarce:
            return
        if not self.careful:
            bucket.rate *= 2.0 ** min(passed, 1.0)
        elif bucket.rate < 0.9 * self.ceiling:
            bucket.rate = min(0.9 * self.ceiling, bucket.rate * 1.2 ** min(passed, 1.0))
        else:
            # So slowly that the rejection that ends it is one in several hundred requests; faster from period to
            # period as long as none comes.
            period = min(60.0, max(5.0, 300.0 / bucket.rate))
            rounds = math.floor((self.at - self.cut_at) / period)
            bucket.rate *= 1.0 + min(0.5 * passed, 0.02 * 2.0 ** min(rounds, 10) * passed / period)
        bucket.size = max(1.0, 0.25 * bucket.rate)

    def _observe(self, now: float, message: Message) -> None:
        self.window_count += message.get("ok", 0)
        span = now - self.window_at
        if span >= 1.0:
            self.accepted = self.window_count / span
            self.window_at, self.window_count = now, 0.0
        self.tokens.level -= message.get("tokens", 0)
        left = message.get("left")
        if left:
            self.requests.update_from_headers(*left)
        left = message.get("tokens_left")
        if left:
            self.tokens.update_from_headers(*left)
        rejected = message.get("rejected")
        if rejected:
            self._reject(now, *rejected)

    def _reject(self, now: float, wait: float, stamp: float, reported: float) -> None:
        bucket = self.requests
        # A request that was sent before the last cut, or that reached the server while it was still full of such
        # requests, says nothing about the rate now. A request without a stamp was sent before the first cut.
        fresh = bucket.rate <= 0 or (stamp > self.cut_stamp and now - self.cut_at >= _SETTLING_SECONDS)
        if fresh and not reported and not bucket.reported:
            if bucket.rate <= 0:
                # All that has been accepted so far took about a second.
                bucket.rate = max(1.0, self.accepted, self.window_count, 0.5 * bucket.sent)
                bucket.level = 0.0
            else:
                known = min(bucket.rate, self.accepted) if self.accepted > 0 else bucket.rate
                # Few requests may have been accepted because few were sent: never cut by more than 30%.
                rate = max(0.1, 0.98 * known, 0.7 * bucket.rate)
                self.ceiling = 0.5 * (bucket.rate + rate)
                bucket.rate = rate
                self.careful = True
            bucket.size = max(1.0, 0.25 * bucket.rate)
        if fresh:
            bucket.level = min(bucket.level, 0.0)
            self.cut_stamp = bucket.sent
            self.cut_at = now
        if wait > 0:
            self.blocked_until = max(self.blocked_until, now + min(wait, _BLOCKED_AT_MOST_SECONDS))

    def _grant(self, now: float, asks: Sequence[Sequence[Any]]) -> Answer:
        requests, tokens = self.requests, self.tokens
        limited = requests.speed() > 0 or tokens.speed() > 0 or self.blocked_until > now
        grants: list[int] = []
        wait = 0.0
        for name, wanted, needed in asks:
            share = self.shares.of(name, now)
            granted, pause = self._take(now, name, share, wanted, needed / max(1, wanted))
            grants.append(granted)
            share.virtual_time += granted
            share.waits_until = now + 2 * pause + 0.2 if granted < wanted else 0.0
            if granted < wanted:
                wait = min(wait, pause) if wait > 0 else pause
        if asks:
            self.scarce = wait > 0
        self.shares.forget_idle(now)
        return {
            "grants": grants,
            "wait": wait,
            "sent": requests.sent,
            "tokens_sent": tokens.sent,
            "limited": int(limited),
        }

    def _take(self, now: float, name: str, share: Share, wanted: int, tokens_each: float) -> tuple[int, float]:
        """How many of `wanted` requests may be sent, and the seconds until the next one may."""
        if self.blocked_until > now:
            return 0, self.blocked_until - now
        granted, pause = float(wanted), 0.0
        speed, token_speed = self.requests.speed(), self.tokens.speed()
        if speed > 0:
            free = self.requests.level - self.requests.reserve()
            granted = min(granted, max(0.0, math.floor(free)))
            if granted < wanted:
                short = max(1.0 - free + granted, min(wanted - granted, 0.05 * speed))
                pause = max(pause, short / speed)
        if token_speed > 0:
            free = self.tokens.level - self.tokens.reserve()
            # The last request may overdraw the bucket: token counts are estimates.
            fits = math.ceil(free / max(1.0, tokens_each)) if free > 0 else 0
            if fits < granted:
                granted = float(fits)
                pause = max(pause, (tokens_each - free if free <= 0 else tokens_each) / token_speed)
        if speed > 0 or token_speed > 0:
            least = self.shares.least_waiting_time(name, now)
            if least is not None:
                ahead = math.floor(least + max(1.0, 0.05 * speed) - share.virtual_time)
                if ahead < granted:
                    granted = max(0.0, float(ahead))
                    pause = max(pause, 0.02)
        self.requests.level -= granted
        self.requests.sent += granted
        self.tokens.level -= granted * tokens_each
        self.tokens.sent += granted * tokens_each
        return int(granted), min(5.0, max(0.005, pause))
