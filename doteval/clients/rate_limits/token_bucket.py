"""The budget of one (base URL, model): what may be sent now, kept from what the server says of its limits.

Two buckets, of requests and of tokens, mirror the server's own. A server that tells in headers what is
left sets their rate and level. Of one that only rejects the rate is learned: after a 429 a little less
than what it accepted, then slowly more until the next one. `RedisBudgets` does the same in Lua
(``token_bucket.lua``) for all worker processes; a test holds the two together.

Fair between evaluations: each has a virtual time that grows with every request it may send, and none
gets ahead of another one that waits (start-time fair queueing, Goyal, Vin and Cheng 1996).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# A message to a budget, its answer, and the state between them are plain JSON, for Lua's sake.
Message = Mapping[str, Any]
"""``given``: requests and tokens a second that the user allows (0: any); ``asks``: for each evaluation
its name, how many requests it wants to send, and their tokens; what was seen since the last message:
``ok`` (replies), ``tokens`` (used beyond the estimates), ``rejected`` ([seconds to wait or -1, stamp,
whether headers told the limit]), ``left`` and ``tokens_left`` ([limit, remaining, reset, stamp, age])."""

Answer = dict[str, Any]
"""``grants``: how many requests each of the asks may send; ``wait``: seconds until asking again makes
sense; ``sent`` and ``tokens_sent``: counters, whose value is the stamp of the last request that was
granted; ``limited``: whether asking is needed at all."""

_BLOCKED_AT_MOST = 120.0
_FORGET_SECONDS = 60.0
_SETTLING_SECONDS = 1.0


class Budgets(Protocol):
    """Budgets by key."""

    def step(self, messages: Sequence[tuple[str, Message]]) -> list[Answer]:
        """One answer for each key and message. Raises ResourceError if the budgets cannot be reached."""

    def close(self) -> None: ...


class LocalBudgets:
    """The budgets of this process alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._budgets: dict[str, Budget] = {}

    def step(self, messages: Sequence[tuple[str, Message]]) -> list[Answer]:
        now = self._clock()
        return [self._budgets.setdefault(key, Budget()).step(now, message) for key, message in messages]

    def close(self) -> None:
        self._budgets.clear()


@dataclass(slots=True)
class Bucket:
    """`rate` a second is what the server allows as far as known, 0 if unknown; `told` whether headers said so."""

    rate: float = 0.0
    size: float = 0.0
    level: float = 0.0
    sent: float = 0.0
    told: bool = False
    given: float = 0.0

    def speed(self) -> float:
        """The lower of what the server and what the user allows; 0 without a limit."""
        if self.rate > 0 and self.given > 0:
            return min(self.rate, self.given)
        return max(self.rate, self.given)

    def capacity(self) -> float:
        """How much may be saved up: what the server lets, at most a second's worth where the user has set a rate."""
        speed = self.speed()
        room = self.size if self.rate > 0 else speed
        if self.given > 0:
            room = min(room, speed)
        return max(1.0, room)

    def reserve(self) -> float:
        """What stays in the bucket: what other processes have sent may not have arrived yet."""
        if not self.told:
            return 0.0
        room = self.capacity()
        return max(0.0, min(0.2 * room, room - 1.0, 0.5 * self.speed()))

    def allow(self, given: float) -> None:
        if given != self.given:
            fresh = self.given == 0 and self.rate == 0
            self.given = given
            if fresh:
                self.level = self.capacity()

    def refill(self, seconds: float) -> None:
        self.level = min(self.capacity(), self.level + self.speed() * seconds)

    def hear(self, limit: float, remaining: float, reset: float, stamp: float, age: float) -> None:
        """Headers told what was left when a request arrived that was sent `age` seconds ago."""
        used = limit - remaining
        if reset > 0 and used >= max(2.0, 0.05 * limit):
            # A part of a request may have come back already; half of one in the mean.
            rate = (used - 0.5) / reset
            if not self.told:
                self.level = 0.0
                self.rate = rate
            else:
                self.rate += 0.2 * (rate - self.rate)
            self.told = True
        if not self.told:
            return
        self.size = limit
        if stamp < 0:
            return
        guess = min(self.capacity(), remaining - (self.sent - stamp) + self.speed() * age)
        # Down at once, up slowly: a reply may have overtaken requests that were sent before it.
        self.level += (1.0 if guess < self.level else 0.2) * (guess - self.level)


@dataclass(slots=True)
class Share:
    """One evaluation: its virtual time, until when it counts as waiting, and when it last asked."""

    time: float = 0.0
    waits_until: float = 0.0
    seen: float = 0.0


@dataclass(slots=True)
class Budget:
    """See the module's docstring. `now` is any clock that grows."""

    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
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
    shares: dict[str, Share] = field(default_factory=dict)

    def step(self, now: float, message: Message) -> Answer:
        if self.at == 0.0:
            self.at = self.window_at = now
        passed = max(0.0, now - self.at)
        self.at = max(now, self.at)
        now = self.at
        given = message["given"]
        self.requests.allow(given[0])
        self.tokens.allow(given[1])
        self._grow(passed)
        self.requests.refill(passed)
        self.tokens.refill(passed)
        self._observe(now, message)
        return self._grant(now, message["asks"])

    def _grow(self, passed: float) -> None:
        """A rate that was learned from rejections grows while it holds requests back."""
        bucket = self.requests
        if bucket.rate <= 0 or bucket.told or not self.scarce:
            return
        if not self.careful:
            bucket.rate *= 2.0 ** min(passed, 1.0)
        elif bucket.rate < 0.9 * self.ceiling:
            bucket.rate = min(0.9 * self.ceiling, bucket.rate * 1.2 ** min(passed, 1.0))
        else:
            # So slowly that the rejection that ends it is one of several hundred requests; faster from
            # round to round if none comes.
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
            self.requests.hear(*left)
        left = message.get("tokens_left")
        if left:
            self.tokens.hear(*left)
        rejected = message.get("rejected")
        if rejected:
            self._reject(now, *rejected)

    def _reject(self, now: float, wait: float, stamp: float, told: float) -> None:
        bucket = self.requests
        # What was sent before the last cut says nothing about now, nor what met the server while it was
        # still full of that; and what nobody counted was sent before.
        fresh = bucket.rate <= 0 or (stamp > self.cut_stamp and now - self.cut_at >= _SETTLING_SECONDS)
        if fresh and not told and not bucket.told:
            if bucket.rate <= 0:
                # What got through so far was in about a second.
                bucket.rate = max(1.0, self.accepted, self.window_count, 0.5 * bucket.sent)
                bucket.level = 0.0
            else:
                known = min(bucket.rate, self.accepted) if self.accepted > 0 else bucket.rate
                # What was accepted may be little for another reason.
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
            self.blocked_until = max(self.blocked_until, now + min(wait, _BLOCKED_AT_MOST))

    def _grant(self, now: float, asks: Sequence[Sequence[Any]]) -> Answer:
        requests, tokens = self.requests, self.tokens
        limited = requests.speed() > 0 or tokens.speed() > 0 or self.blocked_until > now
        grants: list[int] = []
        wait = 0.0
        for name, wanted, needed in asks:
            share = self._share(now, name)
            granted, pause = self._take(now, name, share, wanted, needed / max(1, wanted))
            grants.append(granted)
            share.time += granted
            share.waits_until = now + 2 * pause + 0.2 if granted < wanted else 0.0
            if granted < wanted:
                wait = min(wait, pause) if wait > 0 else pause
        if asks:
            self.scarce = wait > 0
        self.shares = {name: share for name, share in self.shares.items() if now - share.seen < _FORGET_SECONDS}
        return {
            "grants": grants,
            "wait": wait,
            "sent": requests.sent,
            "tokens_sent": tokens.sent,
            "limited": int(limited),
        }

    def _share(self, now: float, name: str) -> Share:
        share = self.shares.setdefault(name, Share())
        if share.waits_until <= now:
            # Nobody saves up while it has nothing to send.
            share.time = max([share.time, *self._times_of_others(now, name)[:1]])
        share.seen = now
        return share

    def _times_of_others(self, now: float, name: str) -> list[float]:
        """The virtual times of other evaluations that wait, the least first."""
        return sorted(share.time for other, share in self.shares.items() if other != name and share.waits_until > now)

    def _take(self, now: float, name: str, share: Share, wanted: int, tokens_each: float) -> tuple[int, float]:
        """How many of `wanted` requests may be sent, and the seconds until the next may."""
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
            # The last request may go into debt: tokens are estimates.
            fits = math.ceil(free / max(1.0, tokens_each)) if free > 0 else 0
            if fits < granted:
                granted = float(fits)
                pause = max(pause, (tokens_each - free if free <= 0 else tokens_each) / token_speed)
        if speed > 0 or token_speed > 0:
            others = self._times_of_others(now, name)
            if others:
                ahead = math.floor(others[0] + max(1.0, 0.05 * speed) - share.time)
                if ahead < granted:
                    granted = max(0.0, float(ahead))
                    pause = max(pause, 0.02)
        self.requests.level -= granted
        self.requests.sent += granted
        self.tokens.level -= granted * tokens_each
        self.tokens.sent += granted * tokens_each
        return int(granted), min(5.0, max(0.005, pause))
