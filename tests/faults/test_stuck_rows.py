"""Rows that hang for good occupy slots of one process: all other rows end, each begun once, while others have slots."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.project import Project, wait_until

# The first process that comes to row 4 hangs in this row and in all that it begins from then on.
EVALUATION = """
import asyncio, os, pathlib, time
from doteval import Score, foreach

HANGS = pathlib.Path(__file__).with_name("hangs")

def hangs(i):
    if i == 4 and not HANGS.exists():
        HANGS.write_text(str(os.getpid()))
    return HANGS.exists() and HANGS.read_text() == str(os.getpid())

@foreach("i", range(ROWS))
SYNC def eval_it(i):
    tell(f"begin {i}")
    if hangs(i):
        tell("hung")
        AWAIT SLEEP(10_000)
    AWAIT SLEEP(0.002)
    return Score("ok", True, ["accuracy"])

"""

AFTER = """
from doteval import Score, foreach

@foreach("i", range(40))
def eval_later(i):
    tell(f"begin later {i}")
    return Score("ok", True, ["accuracy"])
"""


def source(rows: int, *, is_async: bool) -> str:
    text = EVALUATION.replace("ROWS", str(rows))
    if is_async:
        return text.replace("SYNC", "async").replace("AWAIT", "await").replace("SLEEP", "asyncio.sleep")
    return text.replace("SYNC ", "").replace("AWAIT ", "").replace("SLEEP", "time.sleep")


def begun_twice(project: Project) -> list[str]:
    return [what for what, times in project.counts().items() if what.startswith("begin") and times > 1]


@pytest.mark.parametrize(
    ("concurrency", "is_async", "rows"),
    [
        (1, False, 200),
        pytest.param(1, False, 12, marks=pytest.mark.slow("the case with 200 rows shows the same")),
        (4, True, 300),
        pytest.param(4, False, 300, marks=pytest.mark.slow("as with async rows, but in threads")),
        pytest.param(32, True, 3000, marks=pytest.mark.slow("as with four rows in flight, but with many")),
    ],
)
def test_rows_behind_stuck_ones_run_in_the_other_process(
    project: Project, concurrency: int, is_async: bool, rows: int
) -> None:
    project.write("eval_it.py", source(rows, is_async=is_async))
    command = ("submit", "eval_it.py", "--experiment", "x", "--workers", "2", "--concurrency", str(concurrency))
    with project.started(*command) as process:
        wait_until(lambda: project.counts()["hung"] == concurrency, seconds=60, what="a process that hangs")
        wait_until(lambda: project.done() == rows - concurrency, seconds=90, what="the end of all other rows")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "a second signal" in project.output(), what="what the command waits for")
        deadline = time.monotonic() + 0.5
        wait_until(lambda: time.monotonic() > deadline, what="a signal that is another wish")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert begun_twice(project) == []
