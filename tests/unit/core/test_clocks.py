"""Clocks that evaluation files cannot stop, with the libraries that stop them."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import freezegun
import pytest
import time_machine

import doteval
from doteval.core import clocks
from doteval.core.results import RowStatus
from doteval.runner.calls import CallPolicy, call
from doteval.runner.event_loop import LoopThread
from tests.support.eval_calls import SCORE

Stop = Callable[[], AbstractContextManager[object]]

STOPPED: list[Stop] = [
    lambda: freezegun.freeze_time("2020-01-01"),
    lambda: freezegun.freeze_time("2020-01-01", tick=True),
    lambda: time_machine.travel(0, tick=False),
    lambda: time_machine.travel(timedelta(days=-1000)),
]
NAMES = ["freezegun", "freezegun that ticks", "time-machine", "time-machine that ticks"]


@pytest.mark.parametrize("stop", STOPPED, ids=NAMES)
def test_no_library_stops_the_clocks(stop: Stop) -> None:
    before = clocks.now(), clocks.monotonic(), clocks.perf_counter(), clocks.since_boot()
    moment = clocks.utc_now()
    with stop():
        assert time.time() < before[0] - 1000
        time.sleep(0.01)
        during = clocks.now(), clocks.monotonic(), clocks.perf_counter(), clocks.since_boot()
        assert clocks.utc_now() > moment
    after = clocks.now(), clocks.monotonic(), clocks.perf_counter(), clocks.since_boot()
    for one, two, three in zip(before, during, after, strict=True):
        assert one < two < three + 1e-9 < one + 3600


def test_the_time_is_known_while_another_thread_imports_time_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "time_machine", ModuleType("time_machine"))
    assert abs(clocks.now() - time.time()) < 60


@pytest.mark.parametrize("stop", STOPPED, ids=NAMES)
def test_a_row_that_stops_the_clocks_has_its_real_time(stop: Stop) -> None:
    frozen = []

    def row() -> object:
        frozen.append(stop())
        frozen[0].__enter__()
        time.sleep(0.05)
        return SCORE

    before = clocks.now()
    try:
        outcome = call(row, {}, CallPolicy())
    finally:
        frozen[0].__exit__(None, None, None)
    assert outcome.status is RowStatus.DONE
    assert before <= outcome.started_at <= clocks.now()
    assert 0.05 <= outcome.seconds < 600


def test_the_loop_of_rows_goes_on_while_the_clocks_stand_still() -> None:
    loop = LoopThread()
    try:
        with freezegun.freeze_time("2020-01-01"):
            assert loop.wait_for(asyncio.sleep(0.01, "awake")) == "awake"
    finally:
        loop.close()


# Commands and the processes of servers run no rows.
ELSEWHERE = ("core/clocks.py", "cli/", "mock_openai/", "providers/server/keeper/")


def test_what_runs_beside_rows_reads_no_other_clock() -> None:
    root = Path(doteval.__file__).parent
    reading = re.compile(r"(?<![`\w.])time\.(time|monotonic|perf_counter)\b|datetime\.now\(")
    found = [
        f"{path.relative_to(root)}: {used[0]}"
        for path in sorted(root.rglob("*.py"))
        if not path.relative_to(root).as_posix().startswith(ELSEWHERE)
        for used in reading.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found
