"""A row that fails drops the cached replies that it used, if they may be why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import tenacity

from doteval.core.metering import current_meter
from doteval.core.results import Result, Score
from doteval.runner.calls import CallPolicy, call, call_async, call_batch

GOOD = Result(Score("s", True))


class Cache:
    """Counts how often a reply was asked of the model, and forgets it when it is dropped."""

    def __init__(self) -> None:
        self.is_kept = False
        self.requests = 0

    def ask(self) -> str:
        self.requests += not self.is_kept
        self.is_kept = True
        meter = current_meter()
        assert meter is not None
        meter.note_cached(self.drop)
        return f"reply {self.requests}"

    def drop(self) -> None:
        self.is_kept = False


def run(kind: str, row: Callable[[], Any], policy: CallPolicy) -> None:
    async def row_async() -> Any:
        return row()

    if kind == "async":
        asyncio.run(call_async(row_async, {}, policy))
    else:
        call(row, {}, policy)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("ending", "is_kept"),
    [
        (GOOD, True),
        (IndexError("list index out of range"), False),
        (ExceptionGroup("tasks", [KeyError("answer")]), False),
        (Result(error="no answer in the reply"), False),
        ("not a result", True),
        (ConnectionResetError(), True),
        (NameError("name 'scor' is not defined"), True),
        (ImportError("no module"), True),
    ],
)
def test_failed_rows_drop_what_they_used(kind: str, ending: Any, is_kept: bool) -> None:
    cache = Cache()

    def row() -> Any:
        cache.ask()
        if isinstance(ending, Exception):
            raise ending
        return ending

    run(kind, row, CallPolicy())
    assert cache.is_kept is is_kept


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_next_attempt_of_a_row_asks_again(kind: str) -> None:
    cache = Cache()
    seen = []

    def row() -> Result:
        seen.append(cache.ask())
        if len(seen) < 3:
            raise ValueError("no number in the reply")
        return GOOD

    retrying = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
    run(kind, row, CallPolicy(retrying=retrying))
    assert (seen, cache.is_kept) == (["reply 1", "reply 2", "reply 3"], True)


def test_a_batch_with_a_failed_result_drops_its_replies() -> None:
    cache = Cache()

    def batch() -> list[Result]:
        cache.ask()
        return [GOOD, Result(error="no answer")]

    call_batch(batch, {}, CallPolicy(), 2)
    assert not cache.is_kept
