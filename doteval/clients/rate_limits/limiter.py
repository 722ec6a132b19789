"""Queues the requests of this process until the rate limit, which all processes share, lets them go.

One thread asks the rate limits on behalf of all queued requests, at most some fifty times a second however many
requests there are. Where no limit is known no request waits, and nothing is asked.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from doteval.clients.rate_limits.adaptive_window import AdaptiveRequestWindow
from doteval.clients.rate_limits.headers import LimitState
from doteval.clients.rate_limits.rate_limit import Answer, RateLimits
from doteval.core import clocks
from doteval.errors import ResourceError

logger = logging.getLogger("doteval.clients")

# Observations are reported this often, if nothing is asked meanwhile.
_REPORT_SECONDS = 0.2
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class UserLimits:
    """What the user allows a minute; None for no limit.

    >>> UserLimits(requests_per_minute=90).per_second()
    [1.5, 0.0]
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def per_second(self) -> list[float]:
        """Requests and tokens a second, 0 for no limit."""
        return [(self.requests_per_minute or 0.0) / 60.0, (self.tokens_per_minute or 0.0) / 60.0]


@dataclass(frozen=True, slots=True)
class Permit:
    """Allows one request to be sent.

    `era`: of the window; `tokens`: the estimate; `at`: when it was granted, in monotonic seconds; `stamp` and
    `tokens_stamp`: the counters of the rate limit after this request, -1 if it was not asked.
    """

    target: LimitTarget
    era: int
    tokens: float
    at: float
    stamp: float = -1.0
    tokens_stamp: float = -1.0


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """What a reply said. `status` 0: there was no reply. `tokens` None: unknown. `retry_after`: seconds."""

    status: int
    retry_after: float | None = None
    requests_left: LimitState | None = None
    tokens_left: LimitState | None = None
    tokens: int | None = None


@dataclass(slots=True)
class _Observations:
    """What replies said since the rate limit was last informed, under the names of its messages."""

    ok: int = 0
    tokens: float = 0.0
    rejected: list[float] | None = None
    left: list[float] | None = None
    tokens_left: list[float] | None = None

    def __bool__(self) -> bool:
        return bool(self.ok or self.tokens or self.rejected or self.left or self.tokens_left)

    def message(self) -> dict[str, Any]:
        return {name: value for name in _Observations.__slots__ if (value := getattr(self, name))}


class LimitTarget:
    """The requests of this process to one (base URL, model): those in flight, and those queued by evaluation."""

    def __init__(self, key: str, limits: UserLimits, *, limited: bool) -> None:
        self.key = key
        self.user_rates = limits.per_second()
        self.limited = limited
        self.window = AdaptiveRequestWindow()
        self.queued: OrderedDict[str, deque[tuple[Future[Permit], float]]] = OrderedDict()
        self.observations = _Observations()
        self.ask_at = 0.0
        self.report_at = 0.0
        self.mean_tokens: float | None = None

    def free(self) -> int:
        """How many more requests the window allows in flight."""
        return max(0, self.window.limit - self.window.in_flight)

    def sendable(self) -> dict[str, int]:
        """How many queued requests of each evaluation the window allows, divided evenly."""
        counts = dict.fromkeys(self.queued, 0)
        free = self.free()
        while free > 0:
            open_names = [name for name, requests in self.queued.items() if counts[name] < len(requests)]
            if not open_names:
                break
            each = max(1, free // len(open_names))
            for name in open_names:
                more = min(each, len(self.queued[name]) - counts[name], free)
                counts[name] += more
                free -= more
        return {name: count for name, count in counts.items() if count}

    def take(self, name: str, count: int, answer: Answer | None) -> Iterator[tuple[Future[Permit], Permit]]:
        """Dequeue the first `count` requests of an evaluation that nobody cancelled, with their permits."""
        requests = self.queued.get(name, deque())
        now = clocks.monotonic()
        number = 0
        while requests and number < count:
            future, tokens = requests.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            number += 1
            stamp, tokens_stamp = -1.0, -1.0
            if answer is not None:
                stamp = answer["sent"] - count + number
                tokens_stamp = answer["tokens_sent"]
            yield future, Permit(self, self.window.begin(), tokens, now, stamp, tokens_stamp)
        if not requests:
            self.queued.pop(name, None)


class RateLimiter:
    """See the module's docstring. Safe to use from any thread, and from event loops through the futures.

    `limits`: where the limits are kept; `shared`: whether other processes use them too.

    >>> from doteval.clients.rate_limits.rate_limit import LocalRateLimits
    >>> limiter = RateLimiter(LocalRateLimits(), shared=False)
    >>> target = limiter.target("http://localhost m", UserLimits())
    >>> permit = limiter.request_permit(target, "eval_a", tokens=100)
    >>> limiter.finish(permit, RequestOutcome(200))
    >>> target.window.in_flight
    0
    """

    def __init__(self, limits: RateLimits, *, shared: bool) -> None:
        self._limits = limits
        # Other processes may know of a limit that this one has not met yet, so the first request must ask.
        self._shared = shared
        self._targets: dict[str, LimitTarget] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._last_warning = ""
        self._thread: threading.Thread | None = None
        self._finished: queue.SimpleQueue[tuple[Permit, RequestOutcome]] = queue.SimpleQueue()

    def target(self, key: str, limits: UserLimits) -> LimitTarget:
        """The target of a key. The limits that were given last hold."""
        with self._changed:
            target = self._targets.get(key)
            if target is None:
                limited = self._shared or limits != UserLimits()
                target = self._targets[key] = LimitTarget(key, limits, limited=limited)
            elif limits != UserLimits():
                target.user_rates = limits.per_second()
                target.limited = True
            return target

    def request_permit(self, target: LimitTarget, evaluation: str, tokens: float) -> Permit | Future[Permit]:
        """A permit to send a request of about `tokens` tokens: at once, or a future if it has to wait."""
        with self._changed:
            self._finish_queued()
            # The limiter is closed as the process ends; what is sent after that is not held back.
            if self._closing or (not target.limited and not target.queued and target.free()):
                return Permit(target, target.window.begin(), tokens, clocks.monotonic())
            future: Future[Permit] = Future()
            target.queued.setdefault(evaluation, deque()).append((future, tokens))
            self._wake()
        return future

    def cancel(self, future: Future[Permit]) -> None:
        """Stop waiting for a permit. One that was granted in the same moment is given back."""
        if not future.cancel() and future.exception() is None:
            self.finish(future.result(), RequestOutcome(0))

    def reply_started(self, permit: Permit, outcome: RequestOutcome) -> None:
        """Observe the headers of a reply whose body is still being read."""
        with self._changed:
            self._observe(permit, outcome)
            self._wake_for(permit.target)

    def finish(self, permit: Permit, outcome: RequestOutcome, *, reply_started: bool = False) -> None:
        """End the request of a permit. `reply_started`: `reply_started` was called before."""
        with self._changed:
            self._finish(permit, outcome, reply_started=reply_started)

    def finish_without_lock(self, permit: Permit, outcome: RequestOutcome) -> None:
        """End a request after `reply_started` without taking the lock, which the garbage collector may not wait for."""
        self._finished.put((permit, outcome))

    def close(self) -> None:
        """Stop the thread, and fail the requests that still wait with ResourceError."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._limits.close()

    def _finish_queued(self) -> None:
        while not self._finished.empty():
            self._finish(*self._finished.get(), reply_started=True)

    def _finish(self, permit: Permit, outcome: RequestOutcome, *, reply_started: bool) -> None:
        target = permit.target
        limit_is_known = target.limited and not target.observations.rejected
        # A stream may end with a rejection that its start did not show.
        if not reply_started or outcome.status == 429:
            self._observe(permit, outcome)
        # A 429 of a known rate limit says nothing about the number in flight: the rate limit will prevent the next.
        overloaded = outcome.status == 429 and not limit_is_known and not _reports_exhausted(outcome)
        target.window.end(permit.era, failed=outcome.status == 0 or outcome.status >= 500, overloaded=overloaded)
        if outcome.tokens is not None:
            mean = target.mean_tokens
            target.mean_tokens = outcome.tokens if mean is None else mean + 0.05 * (outcome.tokens - mean)
            if target.user_rates[1] > 0 or outcome.tokens_left is not None:
                target.observations.tokens += outcome.tokens - permit.tokens
        self._wake_for(target)

    def _observe(self, permit: Permit, outcome: RequestOutcome) -> None:
        seen, age = permit.target.observations, clocks.monotonic() - permit.at
        if 200 <= outcome.status < 400:
            seen.ok += 1
        left, tokens_left = outcome.requests_left, outcome.tokens_left
        if left is not None and (seen.left is None or permit.stamp >= seen.left[3]):
            seen.left = [left.limit, left.remaining, left.reset, permit.stamp, age]
        if tokens_left is not None and (seen.tokens_left is None or permit.tokens_stamp >= seen.tokens_left[3]):
            seen.tokens_left = [tokens_left.limit, tokens_left.remaining, tokens_left.reset, permit.tokens_stamp, age]
        if outcome.status == 429:
            wait = -1.0 if outcome.retry_after is None else outcome.retry_after
            reported = float(left is not None or tokens_left is not None)
            before = seen.rejected or [-1.0, -1.0, 0.0]
            seen.rejected = [max(wait, before[0]), max(permit.stamp, before[1]), max(reported, before[2])]
            # No request of this process is sent until the rate limit has answered.
            permit.target.limited = True
            permit.target.report_at = 0.0

    def _wake_for(self, target: LimitTarget) -> None:
        if target.queued or _has_news(target):
            self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="doteval-limits", daemon=True)
            self._thread.start()
        self._changed.notify()

    # The methods below run on the limiter's thread.

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    break
                self._finish_queued()
                granted = self._take_unlimited()
                due = self._due()
                if not due and not granted:
                    self._changed.wait(self._pause())
                    continue
                messages = [(target.key, self._message(target)) for target in due]
            _complete(granted)
            if due:
                self._step(due, messages)
        with self._changed:
            waiting = [future for target in self._targets.values() for q in target.queued.values() for future, _ in q]
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(ResourceError("the rate limiter was closed"))

    def _take_unlimited(self) -> list[tuple[Future[Permit], Permit]]:
        return [
            pair
            for target in self._targets.values()
            if not target.limited and target.queued
            for name, count in target.sendable().items()
            for pair in target.take(name, count, None)
        ]

    def _due(self) -> list[LimitTarget]:
        now = clocks.monotonic()
        return [target for target in self._targets.values() if self._due_at(target) <= now]

    def _due_at(self, target: LimitTarget) -> float:
        """When the rate limit of a target is to be asked or informed."""
        if target.limited and target.queued and target.free():
            return target.ask_at if not target.observations.rejected else 0.0
        if _has_news(target):
            return target.report_at
        return float("inf")

    def _pause(self) -> float | None:
        due_at = min((self._due_at(target) for target in self._targets.values()), default=float("inf"))
        if any(target.queued for target in self._targets.values()):
            # `finish_without_lock` cannot wake this thread.
            due_at = min(due_at, clocks.monotonic() + _REPORT_SECONDS)
        return None if due_at == float("inf") else max(0.0, due_at - clocks.monotonic())

    def _message(self, target: LimitTarget) -> dict[str, Any]:
        message = {"user_rates": target.user_rates, "asks": [], **target.observations.message()}
        target.observations = _Observations()
        target.report_at = clocks.monotonic() + _REPORT_SECONDS
        if target.limited:
            for name, count in target.sendable().items():
                tokens = sum(tokens for _, (_, tokens) in zip(range(count), target.queued[name], strict=False))
                message["asks"].append([name, count, tokens])
        return message

    def _step(self, targets: list[LimitTarget], messages: list[tuple[str, dict[str, Any]]]) -> None:
        try:
            answers = self._limits.step(messages)
        except ResourceError as error:
            self._go_without(targets, error)
            return
        self._last_warning = ""
        granted: list[tuple[Future[Permit], Permit]] = []
        with self._changed:
            for target, (_, message), answer in zip(targets, messages, answers, strict=True):
                target.limited = bool(answer["limited"])
                target.ask_at = clocks.monotonic() + answer["wait"]
                stamp = answer["sent"] - sum(answer["grants"])
                for (name, _, _), count in zip(message["asks"], answer["grants"], strict=True):
                    stamp += count
                    granted += target.take(name, count, {**answer, "sent": stamp})
        _complete(granted)

    def _go_without(self, targets: list[LimitTarget], error: ResourceError) -> None:
        """Send without a limit until the rate limits can be reached again: rows matter more than limits."""
        if error.message != self._last_warning:
            logger.warning("%s; requests are sent without them", error.message)
        self._last_warning = error.message
        granted: list[tuple[Future[Permit], Permit]] = []
        with self._changed:
            for target in targets:
                target.ask_at = target.report_at = clocks.monotonic() + _RETRY_SECONDS
                for name, count in target.sendable().items():
                    granted += target.take(name, count, None)
        _complete(granted)


def _has_news(target: LimitTarget) -> bool:
    """Whether the rate limit is to learn what replies said."""
    seen = target.observations
    return bool(seen and (target.limited or seen.left or seen.tokens_left))


def _complete(granted: list[tuple[Future[Permit], Permit]]) -> None:
    # Outside of the lock, because callbacks of the futures run right here.
    for future, permit in granted:
        future.set_result(permit)


def _reports_exhausted(outcome: RequestOutcome) -> bool:
    return any(left is not None and left.remaining < 1 for left in (outcome.requests_left, outcome.tokens_left))
