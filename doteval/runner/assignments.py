"""Assignments: what a conductor is given to run, and what it needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from doteval.core.client_config import CacheChoice
from doteval.core.metering import Meter, Place
from doteval.core.results import Outcome, Row, Usage
from doteval.foreach import ForEachSpec
from doteval.pytest_runtime.row_context import Call, Lane
from doteval.runner.admission import Gate
from doteval.runner.calls import CallPolicy


class WindingDownError(Exception):
    """The process is asked to leave: the rows that had not begun stay pending."""


class Runnable(Protocol):
    """What the conductor needs to know of an evaluation. An `EvaluationItem` is one."""

    @property
    def spec(self) -> ForEachSpec: ...

    @property
    def is_async(self) -> bool: ...

    def exclusive_fixture_names(self) -> list[str]: ...


class Staging(Protocol):
    """Where evaluations are set up. `Stage` is one."""

    @property
    def item(self) -> Any: ...

    @property
    def shared_call(self) -> Call | None: ...

    def enter(self, item: Any) -> None: ...

    def take_lane(self) -> Lane: ...

    def give_back(self, lane: Lane) -> None: ...


class Noted(Protocol):
    """Where rows are noted that were about to begin, for others to see if this process dies or is stuck."""

    def called(self, limit: float) -> None:
        """Their call begins, and may take `limit` seconds: after that, somebody should look after it."""

    def returned(self) -> None:
        """Their call has ended, or needs no looking after."""

    def landed(self) -> None:
        """They have ended."""


@dataclass(eq=False)
class Assignment:
    """Rows of one evaluation to be run.

    `record` is called for every row with its outcome, on whichever thread it ended; `ended` once,
    after the last of them, with None or with what cut the assignment short. `note` is told of rows
    that are about to begin, and gives what to tell how it goes on. Rows that are to run
    `alone` have no other row beside them in this process. `policy` is used instead of the conductor's.
    `name` is what all worker processes call the evaluation. What the `gate` refuses does not begin, and cuts
    the assignment short. `cache` is what the submission says of the cache of replies.
    `spend` is told what was used for no result: to set up fixtures that rows share, or for rows that were not begun.
    """

    item: Runnable
    rows: Iterator[Row]
    record: Callable[[Row, Outcome], None]
    ended: Callable[[BaseException | None], None]
    note: Callable[[Sequence[Row]], Noted] | None = None
    alone: bool = False
    policy: CallPolicy | None = None
    name: str = ""
    gate: Gate | None = None
    cache: CacheChoice | None = None
    spend: Callable[[Place, tuple[Usage, ...]], None] | None = None
    in_flight: int = field(default=0, init=False)
    withdrawn: bool = field(default=False, init=False)
    drawn: bool = field(default=False, init=False)
    cut: BaseException | None = field(default=None, init=False)

    def place_of(self, rows: Sequence[Row]) -> Place:
        """Which row pays for a call: the first of a batch."""
        return Place(self.name, rows[0].index, rows[0].sample)

    def pay(self, meter: Meter) -> None:
        """Tell what was used for no result."""
        used = meter.reading()
        if used and self.spend is not None and meter.place is not None:
            self.spend(meter.place, used)
