"""Attributes API usage to the row that is running, through a context variable.

The row runner opens a meter around each row; clients add to the meter of the code that calls them. Since a context
variable carries it, rows that overlap on one event loop, or run in threads, keep their usage apart.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, TypeVar

from doteval.core.call_journal import RowCalls
from doteval.core.client_config import CacheChoice
from doteval.core.fast_dataclass import row_value
from doteval.core.results import Usage
from doteval.core.tracing import RowSpan

Returned = TypeVar("Returned")


@row_value
class UsageScope:
    """What usage is attributed to: a row, by its evaluation, index and sample.

    evaluation: a name that is the same in every worker process.
    index: -1 for usage of no row, as while fixtures are set up that rows share.
    """

    evaluation: str
    index: int
    sample: int = 0


_set_ups = itertools.count()


def setup_usage_scope(evaluation: str) -> UsageScope:
    """A new scope for setting up the fixtures that the rows of an evaluation share.

    >>> setup_usage_scope("e") == setup_usage_scope("e")
    False
    """
    return UsageScope(evaluation, -1, next(_set_ups))


class Meter:
    """Adds up usage by model, that of judges and what has no price apart. Threads that a row starts may use it too.

    scope: what the usage is attributed to, None if that is not known.
    cache: what the row's submission says of the reply cache, None for nothing.
    calls: the row's part of the call journal, None if its calls are not stored.
    parks: whether calls are sent in batches, as those of eval functions in batch mode, not those of fixtures.
    span: of the row, None if it is not traced.

    >>> meter = Meter()
    >>> meter.add(Usage("m", requests=1))
    >>> meter.add(Usage("m", requests=2))
    >>> [(usage.model, usage.requests) for usage in meter.reading()]
    [('m', 3)]
    >>> meter.add(Usage("m", requests=1, prompt_tokens=5, cost=0.25))
    >>> meter.add(Usage("m", requests=1, prompt_tokens=7))
    >>> [(usage.requests, usage.prompt_tokens, usage.cost) for usage in meter.reading()]
    [(4, 5, 0.25), (1, 7, None)]
    """

    def __init__(
        self, scope: UsageScope | None = None, cache: CacheChoice | None = None, calls: RowCalls | None = None
    ) -> None:
        self.scope = scope
        self.cache = cache
        self.calls = calls
        self.parks = False
        self.span: RowSpan | None = None
        self._lock = threading.Lock()
        self._by_identity: dict[tuple[str, bool, bool], Usage] = {}
        # Tokens without a price. Among others of a model with that name they would seem to cost nothing.
        self._unpriced: dict[tuple[str, bool, bool], Usage] = {}
        self._drop_cached: list[Callable[[], None]] = []

    def add(self, usage: Usage) -> None:
        is_unpriced = usage.cost is None and (usage.prompt_tokens or usage.completion_tokens)
        identity = usage.identity
        with self._lock:
            added = self._unpriced if is_unpriced else self._by_identity
            known = added.get(identity)
            added[identity] = usage if known is None else known + usage
        if _observer is not None and self.scope is not None:
            _observer(self.scope, usage)

    def note_cached(self, drop: Callable[[], None]) -> None:
        """Note that a reply was used that a cache holds; `drop` removes it there."""
        self._drop_cached.append(drop)

    @property
    def used_cached(self) -> bool:
        """Whether replies were noted that a cache holds."""
        return bool(self._drop_cached)

    def drop_cached(self) -> None:
        """Remove the replies that were used so far from the cache, so that they are asked for again."""
        drops, self._drop_cached = self._drop_cached, []
        for drop in drops:
            drop()

    def reading(self) -> tuple[Usage, ...]:
        """The usage added so far, one entry for each `Usage.identity`; two if only some of its tokens have a price."""
        with self._lock:
            if not self._unpriced:
                return tuple(self._by_identity.values())
            found = self._by_identity.copy()
            mixed = []
            for identity, usage in self._unpriced.items():
                known = found.get(identity)
                if known is None or known.cost is None:
                    found[identity] = usage if known is None else known + usage
                else:
                    mixed.append(usage)
            return (*found.values(), *mixed)


_current: ContextVar[Meter | None] = ContextVar("doteval_meter", default=None)


_observer: Callable[[UsageScope, Usage], None] | None = None
# A process that a row forks would write into the journal of this one.
os.register_at_fork(after_in_child=lambda: observe_usage(None))


def observe_usage(observer: Callable[[UsageScope, Usage], None] | None) -> None:
    """Call `observer` with all usage of rows in this process at once, from any thread; with None call nothing."""
    global _observer
    _observer = observer


def current_meter() -> Meter | None:
    """The meter of the row that is running, None outside of rows."""
    return _current.get()


class metering:  # noqa: N801 (reads as a function; a class enters and leaves faster, and each row does so)
    """Make `meter`, or a new meter, the current one inside the block.

    >>> with metering() as meter:
    ...     current_meter() is meter
    True
    """

    __slots__ = ("_meter", "_token")

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = Meter() if meter is None else meter

    def __enter__(self) -> Meter:
        self._token = _current.set(self._meter)
        return self._meter

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def sum_by_identity(usages: Iterable[Usage]) -> tuple[Usage, ...]:
    """The sums of usages, one entry for each `Usage.identity`; two if only some of its tokens have a price."""
    meter = Meter()
    for usage in usages:
        meter.add(usage)
    return meter.reading()


def with_usage_scope(
    function: Callable[..., Returned],
    scope: UsageScope,
    cache: CacheChoice | None = None,
    calls: RowCalls | None = None,
    span: RowSpan | None = None,
) -> Callable[..., Returned]:
    """A function that sets what the meter that it is called under knows of the row, and calls `function`.

    Calls of an eval function are parked if its row is in batch mode; see `doteval.core.parking`.
    """

    def call(**arguments: Any) -> Returned:
        meter = _current.get()
        if meter is not None:
            meter.scope, meter.cache, meter.calls = scope, cache, calls
            meter.parks = calls is not None and calls.parking is not None
            meter.span = span
        return function(**arguments)

    return call
