"""A conductor on the evaluations of an embedded session, and what its assignments told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from doteval.core.results import Outcome, Row
from doteval.pytest_plugin import loop_key
from doteval.pytest_runtime.embedded_session import Collected
from doteval.pytest_runtime.evaluation_setup import Stage
from doteval.runner.assignments import Assignment
from doteval.runner.scheduler import Conductor

# Seconds after which a test that waits for ever is ended, so that it fails and does not hang.
PATIENCE = 20.0

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


# Rows that say that they ran.
SIMPLE = four_kinds("events.append(x)")


def rows(count: int, first: int = 0) -> Iterator[Row]:
    return (Row(index, f"k{index}", {"x": index}) for index in range(first, first + count))


@dataclass(eq=False)
class Told:
    """What an assignment told: outcomes by row index, how often each was recorded, and how it ended."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    recorded: Counter[int] = field(default_factory=Counter)
    ends: list[BaseException | None] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def record(self, row: Row, outcome: Outcome) -> None:
        self.outcomes[row.index] = outcome
        self.recorded[row.index] += 1

    def ended(self, cut: BaseException | None) -> None:
        self.ends.append(cut)
        self.over.set()

    @property
    def cut(self) -> BaseException | None:
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
    """A conductor on the evaluations of one session; they are in `items`, by name, and their module is `module`."""

    def __init__(self, collected: Collected, **settings: Any) -> None:
        self.items = {item.evaluation_name: item for item in collected.items}
        self.module: Any = collected.items[0].module
        self.stage = Stage()
        self.loop = collected.config.stash[loop_key]
        self.conductor = Conductor(self.stage, self.loop, **settings)
        self.told: list[Told] = []

    def assignment(self, name: str, given: int | Iterator[Row] = 1, **more: Any) -> tuple[Assignment, Told]:
        told = Told()
        record = more.pop("record", told.record)
        drawn = rows(given) if isinstance(given, int) else given
        return Assignment(self.items[name], drawn, record, told.ended, **more), told

    def assign(self, name: str, given: int | Iterator[Row] = 1, **more: Any) -> Told:
        assignment, told = self.assignment(name, given, **more)
        self.told.append(told)
        self.conductor.assign(assignment)
        return told

    def serve(self) -> None:
        """Serve on this thread until what was assigned so far has ended, then close the stage."""
        waited = list(self.told)

        def wait() -> None:
            if all(told.over.wait(PATIENCE) for told in waited):
                self.conductor.wind_down()

        threading.Thread(target=wait, daemon=True).start()
        self.serve_until_left()

    def serve_until_left(self) -> None:
        """Serve on this thread until somebody winds the conductor down, then close the stage."""
        watchdog = threading.Timer(PATIENCE, self.conductor.post, [give_up])
        watchdog.start()
        try:
            self.conductor.serve()
        finally:
            watchdog.cancel()
        self.stage.close()

    def work_off(self, name: str, given: int | Iterator[Row] = 1) -> Told:
        """Have one assignment worked off on this thread, as plain pytest does. The stage stays open."""
        assignment, told = self.assignment(name, given)
        self.told.append(told)
        self.stage.enter(self.items[name])
        watchdog = threading.Timer(PATIENCE, self.conductor.post, [give_up])
        watchdog.start()
        try:
            self.conductor.work_off(assignment)
        finally:
            watchdog.cancel()
        return told


def give_up() -> None:
    """Posted to a conductor: ends whatever it waits for."""
    raise TimeoutError("waited in vain")
