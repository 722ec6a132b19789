"""Who may send when: the requests of this process wait here for the budget that all processes share.

One thread asks the budgets for everything that waits, some fifty times a second at most, however many
requests there are. Where no limit is known nobody waits, and nothing is asked.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from doteval.clients.rate_limits.adaptive_window import AdaptiveWindow
from doteval.clients.rate_limits.headers import Left
from doteval.clients.rate_limits.token_bucket import Answer, Budgets
from doteval.errors import ResourceError

logger = logging.getLogger("doteval.clients")

# What was seen is told this often, if nothing is asked meanwhile.
_TELL_SECONDS = 0.2
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows, in a minute; None for any number."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def per_second(self) -> list[float]:
        return [(self.requests_per_minute or 0.0) / 60.0, (self.tokens_per_minute or 0.0) / 60.0]


@dataclass(frozen=True, slots=True)
class Permit:
    """One request that may be sent now. Stamps of -1: nobody counted."""

    line: Line
    era: int
    tokens: float
    at: float
    stamp: float = -1.0
    tokens_stamp: float = -1.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `status` 0: nothing did. `tokens` None: not known."""

    status: int
    retry_after: float | None = None
    requests_left: Left | None = None
    tokens_left: Left | None = None
    tokens: int | None = None


@dataclass(slots=True)
class _Seen:
    """What was seen since the budget was told the last time."""

    ok: int = 0
    tokens: float = 0.0
    rejected: list[float] | None = None
    left: list[float] | None = None
    tokens_left: list[float] | None = None

    def __bool__(self) -> bool:
        return bool(self.ok or self.tokens or self.rejected or self.left or self.tokens_left)

    def message(self) -> dict[str, Any]:
        return {name: value for name in _Seen.__slots__ if (value := getattr(self, name))}


class Line:
    """The requests of this process for one budget: those in flight, and those that wait by evaluation."""

    def __init__(self, key: str, limits: Limits, *, limited: bool) -> None:
        self.key = key
        self.given = limits.per_second()
        self.limited = limited
        self.window = AdaptiveWindow()
        self.waiting: OrderedDict[str, deque[tuple[Future[Permit], float]]] = OrderedDict()
        self.seen = _Seen()
        self.ask_at = 0.0
        self.tell_at = 0.0
        self.mean_tokens: float | None = None

    def free(self) -> int:
        return max(0, self.window.limit - self.window.in_flight)

    def count(self) -> dict[str, int]:
        """How many of those who wait may go by the window, evaluations in turn."""
        counts = dict.fromkeys(self.waiting, 0)
        free = self.free()
        while free > 0:
            open_names = [name for name, queue in self.waiting.items() if counts[name] < len(queue)]
            if not open_names:
                break
            each = max(1, free // len(open_names))
            for name in open_names:
                more = min(each, len(self.waiting[name]) - counts[name], free)
                counts[name] += more
                free -= more
        return {name: count for name, count in counts.items() if count}

    def take(self, name: str, count: int, answer: Answer | None) -> Iterator[tuple[Future[Permit], Permit]]:
        """The first `count` of an evaluation that still wait, with their permits."""
        queue = self.waiting.get(name, deque())
        now = time.monotonic()
        number = 0
        while queue and number < count:
            future, tokens = queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            number += 1
            stamp, tokens_stamp = -1.0, -1.0
            if answer is not None:
                stamp = answer["sent"] - count + number
                tokens_stamp = answer["tokens_sent"]
            yield future, Permit(self, self.window.begun(), tokens, now, stamp, tokens_stamp)
        if not queue:
            self.waiting.pop(name, None)


class Limiter:
    """See the module's docstring. Safe to use from any thread, and from event loops through the futures."""

    def __init__(self, budgets: Budgets, *, shared: bool) -> None:
        self._budgets = budgets
        # Others may know of a limit that this process has not met yet.
        self._shared = shared
        self._lines: dict[str, Line] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._complained = ""
        self._thread: threading.Thread | None = None
        self._left: queue.SimpleQueue[tuple[Permit, Reply]] = queue.SimpleQueue()

    def line(self, key: str, limits: Limits) -> Line:
        """The line of a budget, whose limits are those that were given last."""
        with self._changed:
            line = self._lines.get(key)
            if line is None:
                limited = self._shared or limits != Limits()
                line = self._lines[key] = Line(key, limits, limited=limited)
            elif limits != Limits():
                line.given = limits.per_second()
                line.limited = True
            return line

    def enter(self, line: Line, evaluation: str, tokens: float) -> Permit | Future[Permit]:
        """A permit to send a request that will use about so many tokens, at once or when it may go."""
        with self._changed:
            self._take_back()
            # Closed at the end of the process: what is still sent then is not held back.
            if self._closing or (not line.limited and not line.waiting and line.free()):
                return Permit(line, line.window.begun(), tokens, time.monotonic())
            future: Future[Permit] = Future()
            line.waiting.setdefault(evaluation, deque()).append((future, tokens))
            self._wake()
        return future

    def abandon(self, future: Future[Permit]) -> None:
        """Whoever waited has left, perhaps just as the permit came."""
        if not future.cancel() and future.exception() is None:
            self.leave(future.result(), Reply(0))

    def hear(self, permit: Permit, reply: Reply) -> None:
        """A reply has begun, and the request of the permit goes on until its body has been read."""
        with self._changed:
            self._hear(permit, reply)
            self._wake_for(permit.line)

    def leave(self, permit: Permit, reply: Reply, *, heard: bool = False) -> None:
        """The request of a permit has ended. `heard`: `hear` was told before."""
        with self._changed:
            self._leave(permit, reply, heard=heard)

    def leave_unseen(self, permit: Permit, reply: Reply) -> None:
        """As `leave` after `hear`, but takes no lock: for the garbage collector, which may come while it is held."""
        self._left.put((permit, reply))

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._budgets.close()

    def _take_back(self) -> None:
        while not self._left.empty():
            self._leave(*self._left.get(), heard=True)

    def _leave(self, permit: Permit, reply: Reply, *, heard: bool) -> None:
        line = permit.line
        limit_is_known = line.limited and not line.seen.rejected
        if not heard:
            self._hear(permit, reply)
        # Of a rate that the budget knows, and will keep better, nothing is to be learned here.
        overloaded = reply.status == 429 and not limit_is_known and not _has_none_left(reply)
        line.window.ended(permit.era, failed=reply.status == 0 or reply.status >= 500, overloaded=overloaded)
        if reply.tokens is not None:
            mean = line.mean_tokens
            line.mean_tokens = reply.tokens if mean is None else mean + 0.05 * (reply.tokens - mean)
            if line.given[1] > 0 or reply.tokens_left is not None:
                line.seen.tokens += reply.tokens - permit.tokens
        self._wake_for(line)

    def _hear(self, permit: Permit, reply: Reply) -> None:
        seen, age = permit.line.seen, time.monotonic() - permit.at
        if 200 <= reply.status < 400:
            seen.ok += 1
        left, tokens_left = reply.requests_left, reply.tokens_left
        if left is not None and (seen.left is None or permit.stamp >= seen.left[3]):
            seen.left = [left.limit, left.remaining, left.reset, permit.stamp, age]
        if tokens_left is not None and (seen.tokens_left is None or permit.tokens_stamp >= seen.tokens_left[3]):
            seen.tokens_left = [tokens_left.limit, tokens_left.remaining, tokens_left.reset, permit.tokens_stamp, age]
        if reply.status == 429:
            wait = -1.0 if reply.retry_after is None else reply.retry_after
            told = float(left is not None or tokens_left is not None)
            before = seen.rejected or [-1.0, -1.0, 0.0]
            seen.rejected = [max(wait, before[0]), max(permit.stamp, before[1]), max(told, before[2])]
            # Until the budget has answered, nobody of this process goes on.
            permit.line.limited = True
            permit.line.tell_at = 0.0

    def _wake_for(self, line: Line) -> None:
        if line.waiting or (line.seen and (line.limited or line.seen.left or line.seen.tokens_left)):
            self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="doteval-limits", daemon=True)
            self._thread.start()
        self._changed.notify()

    # What follows runs on the limiter's own thread.

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    break
                self._take_back()
                granted = self._let_unlimited_go()
                due = self._due()
                if not due and not granted:
                    self._changed.wait(self._pause())
                    continue
                messages = [(line.key, self._message(line)) for line in due]
            _complete(granted)
            if due:
                self._step(due, messages)
        with self._changed:
            waiting = [future for line in self._lines.values() for q in line.waiting.values() for future, _ in q]
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(ResourceError("the limits of requests were closed"))

    def _let_unlimited_go(self) -> list[tuple[Future[Permit], Permit]]:
        return [
            pair
            for line in self._lines.values()
            if not line.limited and line.waiting
            for name, count in line.count().items()
            for pair in line.take(name, count, None)
        ]

    def _due(self) -> list[Line]:
        now = time.monotonic()
        return [line for line in self._lines.values() if self._moment(line) <= now]

    def _moment(self, line: Line) -> float:
        """When the budget of a line is to be asked, or told."""
        if line.limited and line.waiting and line.free():
            return line.ask_at if not line.seen.rejected else 0.0
        if line.seen and (line.limited or line.seen.left or line.seen.tokens_left):
            return line.tell_at
        return float("inf")

    def _pause(self) -> float | None:
        moment = min((self._moment(line) for line in self._lines.values()), default=float("inf"))
        if any(line.waiting for line in self._lines.values()):
            # Those who leave unseen wake nobody.
            moment = min(moment, time.monotonic() + _TELL_SECONDS)
        return None if moment == float("inf") else max(0.0, moment - time.monotonic())

    def _message(self, line: Line) -> dict[str, Any]:
        message = {"given": line.given, "asks": [], **line.seen.message()}
        line.seen = _Seen()
        line.tell_at = time.monotonic() + _TELL_SECONDS
        if line.limited:
            for name, count in line.count().items():
                tokens = sum(tokens for _, (_, tokens) in zip(range(count), line.waiting[name], strict=False))
                message["asks"].append([name, count, tokens])
        return message

    def _step(self, lines: list[Line], messages: list[tuple[str, dict[str, Any]]]) -> None:
        try:
            answers = self._budgets.step(messages)
        except ResourceError as error:
            self._go_without(lines, error)
            return
        self._complained = ""
        granted: list[tuple[Future[Permit], Permit]] = []
        with self._changed:
            for line, (_, message), answer in zip(lines, messages, answers, strict=True):
                line.limited = bool(answer["limited"])
                line.ask_at = time.monotonic() + answer["wait"]
                stamp = answer["sent"] - sum(answer["grants"])
                for (name, _, _), count in zip(message["asks"], answer["grants"], strict=True):
                    stamp += count
                    granted += line.take(name, count, {**answer, "sent": stamp})
        _complete(granted)

    def _go_without(self, lines: list[Line], error: ResourceError) -> None:
        """Rows are worth more than limits: each process for itself, until the budgets can be reached again."""
        if error.message != self._complained:
            logger.warning("%s; requests go on without", error.message)
        self._complained = error.message
        granted: list[tuple[Future[Permit], Permit]] = []
        with self._changed:
            for line in lines:
                line.ask_at = line.tell_at = time.monotonic() + _RETRY_SECONDS
                for name, count in line.count().items():
                    granted += line.take(name, count, None)
        _complete(granted)


def _complete(granted: list[tuple[Future[Permit], Permit]]) -> None:
    # Outside of the lock: what waits may begin right here.
    for future, permit in granted:
        future.set_result(permit)


def _has_none_left(reply: Reply) -> bool:
    return any(left is not None and left.remaining < 1 for left in (reply.requests_left, reply.tokens_left))
