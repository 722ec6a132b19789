"""Runs a scheduler on the evaluations of an embedded session, and keeps what its assignments report."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from doteval.core.results import Outcome, Row
from doteval.pytest_plugin import loop_key
from doteval.pytest_runtime.embedded_session import Collected
from doteval.pytest_runtime.evaluation_setup import EvaluationSetup
from doteval.runner.assignments import Assignment
from doteval.runner.scheduler import Scheduler

# Seconds after which a test that hangs is ended, so that it fails.
TIMEOUT_SECONDS = 20.0

HEADER = """
import asyncio, threading, time
import pytest
from doteval import Score, foreach

OK = Score("ok", True)
events = []
lock = threading.Lock()
"""

# The four ways in which rows run, by name.
KINDS = ["eval_async", "eval_async_own", "eval_sync", "eval_sync_own"]


def four_kinds(async_body: str, sync_body: str | None = None) -> str:
    """Evaluations of the four kinds: the bodies may use `x`, and return OK at their end."""
    bodies = {"async def": async_body, "def": sync_body or async_body}
    source = """
made, torn = [], []

@pytest.fixture
def own():
    made.append(1)
    yield
    torn.append(1)
"""
    for define, kind in (("async def", "eval_async"), ("def", "eval_sync")):
        for name, own in ((kind, ""), (f"{kind}_own", ", own")):
            source += f'\n@foreach("x", [(1,)])\n{define} {name}(x{own}):\n'
            source += "".join(f"    {line}\n" for line in bodies[define].strip().splitlines())
            source += "    return OK\n"
    return source


# Rows that note in `events` that they ran.
SIMPLE = four_kinds("events.append(x)")


def rows(count: int, first: int = 0) -> Iterator[Row]:
    return (Row(index, f"k{index}", {"x": index}) for index in range(first, first + count))


@dataclass(eq=False)
class Reported:
    """What an assignment reported: outcomes by row index, how often each was recorded, and how it ended."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    recorded: Counter[int] = field(default_factory=Counter)
    ends: list[BaseException | None] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def record(self, row: Row, outcome: Outcome) -> None:
        self.outcomes[row.index] = outcome
        self.recorded[row.index] += 1

    def ended(self, error: BaseException | None) -> None:
        self.ends.append(error)
        self.over.set()

    @property
    def ended_by(self) -> BaseException | None:
        """The error that ended the assignment early, None if there was none."""
        assert len(self.ends) == 1, "an assignment ends exactly once"
        return self.ends[0]

    @property
    def statuses(self) -> list[str]:
        return [self.outcomes[index].status.value for index in sorted(self.outcomes)]

    @property
    def errors(self) -> list[str | None]:
        """The message of each row, None where there is none."""
        ordered = (self.outcomes[index].error for index in sorted(self.outcomes))
        return [None if error is None else error.message for error in ordered]


class Bench:
    """A scheduler on the evaluations of one session: `items` has them by name, and `module` is their module."""

    def __init__(self, collected: Collected, **settings: Any) -> None:
        self.items = {item.evaluation_name: item for item in collected.items}
        self.module: Any = collected.items[0].module
        self.setup = EvaluationSetup()
        self.loop = collected.config.stash[loop_key]
        self.scheduler = Scheduler(self.setup, self.loop, **settings)
        self.reported: list[Reported] = []

    def assignment(self, name: str, given: int | Iterator[Row] = 1, **more: Any) -> tuple[Assignment, Reported]:
        reported = Reported()
        record = more.pop("record", reported.record)
        drawn = rows(given) if isinstance(given, int) else given
        return Assignment(self.items[name], drawn, record, reported.ended, **more), reported

    def assign(self, name: str, given: int | Iterator[Row] = 1, **more: Any) -> Reported:
        assignment, reported = self.assignment(name, given, **more)
        self.reported.append(reported)
        self.scheduler.assign(assignment)
        return reported

    def serve(self) -> None:
        """Serve on this thread until what was assigned so far has ended, then tear everything down."""
        waited = list(self.reported)

        def wait() -> None:
            if all(reported.over.wait(TIMEOUT_SECONDS) for reported in waited):
                self.scheduler.wind_down()

        threading.Thread(target=wait, daemon=True).start()
        self.serve_until_wound_down()

    def serve_until_wound_down(self) -> None:
        """Serve on this thread until the scheduler winds down, then tear everything down."""
        watchdog = threading.Timer(TIMEOUT_SECONDS, self.scheduler.post, [give_up])
        watchdog.start()
        try:
            self.scheduler.serve()
        finally:
            watchdog.cancel()
        self.setup.close()

    def run(self, name: str, given: int | Iterator[Row] = 1) -> Reported:
        """Run one assignment on this thread, as plain pytest does. Shared fixtures stay loaded."""
        assignment, reported = self.assignment(name, given)
        self.reported.append(reported)
        self.setup.enter(self.items[name])
        watchdog = threading.Timer(TIMEOUT_SECONDS, self.scheduler.post, [give_up])
        watchdog.start()
        try:
            self.scheduler.run(assignment)
        finally:
            watchdog.cancel()
        return reported


def give_up() -> None:
    """Ends what a scheduler waits for, when it is posted to it."""
    raise TimeoutError("waited in vain")
