"""The evaluation that fault tests run, and the check of its results afterwards."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.support.project import Process, Project, suspend, wait_until

ROWS = 240
CONCURRENCY = 10

EVALUATION = """
import asyncio
import os
import pytest
from doteval import Result, foreach
from doteval.evaluators import exact_match

@pytest.fixture(scope="session")
def model():
    tell("+model")
    yield "m"
    tell("-model")

def may_end(index):
    # Whether a row may end: it is not held, or no longer.
    return index < int((os.path.exists("go") and open("go").read()) or HELD)

@foreach("text,label", [(f"text {i}", str(i % 2)) for i in range(ROWS)])
async def eval_steady(text, label, model):
    tell("begin " + text)
    await asyncio.sleep(SECONDS)
    while not may_end(int(text.removeprefix("text "))):
        await asyncio.sleep(0.02)
    tell("end " + text)
    return Result(exact_match(label, "0"), prompt=text)
"""


def write_evaluation(project: Project, *, rows: int = ROWS, seconds: float = 0.15, held: int | None = None) -> None:
    """Write ``eval_it.py`` with `rows` rows of `seconds` each.

    Rows from `held` on do not end before `let_go`, so that a test can act in the middle of the evaluation, however long
    other commands take to start.
    """
    text = EVALUATION
    for word, value in {"ROWS": rows, "SECONDS": seconds, "HELD": rows if held is None else held}.items():
        text = text.replace(word, str(value))
    project.write("eval_it.py", text)


def let_go(project: Project, rows: int = 1_000_000) -> None:
    """Let the first `rows` rows end that `write_evaluation` holds; by default all."""
    project.write("go", str(rows))


def some_moment(seed: int, rows: int = ROWS) -> int:
    """The number of rows that are done when the fault comes."""
    return random.Random(seed).randrange(10, rows // 2)


@dataclass(frozen=True, slots=True)
class Executions:
    """How often rows ran; `again` counts the executions beyond one per row."""

    rows: int
    again: int


def check(project: Project, experiment: str, *, rows: int = ROWS, in_flight: int) -> Executions:
    """Check that every row has exactly one result, that counts agree, and that few rows ran twice.

    `in_flight` is how many rows were in flight in what was broken: only those may run twice.
    """
    records = project.records(experiment)["eval_steady"]
    assert [record.row.index for record in records] == list(range(rows))
    assert {record.outcome.status for record in records} == {"done"}
    assert [record.row.values["text"] for record in records] == [f"text {i}" for i in range(rows)]
    with project.store() as store:
        evaluation = store.evaluations.of(store.experiments.find(experiment))[0]
        assert evaluation.counts.done == evaluation.counts.total == rows
        assert evaluation.status == "completed"
    begun = sum(count for what, count in project.counts().items() if what.startswith("begin "))
    found = Executions(rows, begun - rows)
    print(f"lost: 0 of {rows} rows; executed again: {found.again} (in flight at the fault: {in_flight})")
    assert 0 <= found.again <= in_flight
    return found


def freeze(project: Project, pids: Collection[int]) -> int:
    """Stop these worker processes. Returns how many of the rows of "x" that they have begun have no result.

    Those are what is in flight in them: rows that run, and rows that have ended while their results are on their way to
    the store. Nothing moves any more, so a kill that follows finds exactly these.
    """
    suspend(pids)
    stored = {f"begin {record.row.values['text']}" for record in project.records("x")["eval_steady"]}
    begun = {event.what for event in project.events() if event.pid in pids and event.what.startswith("begin ")}
    return len(begun - stored)


@contextmanager
def submitted(project: Project, processes: int, *options: str, prefix: Sequence[str] = ()) -> Iterator[Process]:
    """Submit ``eval_it.py`` as the experiment "x" to a service of `processes` processes; yields the submitter.

    prefix: runs both commands, as ``ip netns exec NAME`` does.
    """

    def started(*arguments: str) -> AbstractContextManager[Process]:
        program = [*prefix, sys.executable, "-m", "doteval", *arguments] if prefix else None
        return project.started(*arguments, program=program)

    with started("worker", ".", "--processes", str(processes)):
        ready(project, processes)
        with started("submit", "eval_it.py", "--experiment", "x", *options) as submitter:
            yield submitter


def begun_rows(project: Project) -> int:
    """How many executions of rows have begun."""
    return sum(event.what.startswith("begin ") for event in project.events())


def longest_stop(project: Project, submitter: Process, rows: int) -> float:
    """Wait until the submitter ends. Returns the longest time in seconds in which no row began until all had."""
    longest, last, since = 0.0, begun_rows(project), time.monotonic()
    while submitter.poll() is None:
        time.sleep(0.1)
        now, at = begun_rows(project), time.monotonic()
        if now < rows:
            longest = max(longest, at - since)
        if now != last:
            last, since = now, at
        assert at - since < 120, project.output()
    return longest


def ready(project: Project, processes: int) -> None:
    """Wait until `processes` worker processes are ready."""
    wait_until(
        lambda: sum(worker.state == "ready" for worker in project.workers()) >= processes,
        seconds=90,
        what=f"{processes} ready worker processes",
    )


def reached(project: Project, rows: int) -> None:
    """Wait until `rows` rows are done. Fails with what the commands have printed."""
    try:
        wait_until(lambda: project.done() >= rows, what=f"{rows} rows")
    except AssertionError as error:
        raise AssertionError(f"{error}; {project.done()} are done\n{project.output()[-5000:]}") from None
