"""A batch call has an outcome for each of its rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from doteval.core.metering import current_meter
from doteval.core.results import Outcome, Result, RowStatus, Score, Usage
from doteval.runner.calls import call_batch, call_batch_async
from tests.support.eval_calls import NEVER, SCORE

RunBatch = Callable[..., list[Outcome]]


@pytest.fixture(params=["sync", "async"])
def run_batch(request: pytest.FixtureRequest) -> RunBatch:
    if request.param == "sync":
        return lambda function, rows: call_batch(function, {"x": list(range(rows))}, NEVER, rows)

    def run_async(function: Callable[..., Any], rows: int) -> list[Outcome]:
        async def eval_function(x: list[int]) -> Any:
            return function(x)

        return asyncio.run(call_batch_async(eval_function, {"x": list(range(rows))}, NEVER, rows))

    return run_async


def test_a_batch_has_an_outcome_for_each_row_and_counts_usage_once(run_batch: RunBatch) -> None:
    def function(x: list[int]) -> Any:
        meter = current_meter()
        assert meter is not None
        meter.add(Usage("m", requests=1))
        return [Result(SCORE, prompt=0), Score("ok", False), "nonsense"]

    outcomes = run_batch(function, 3)
    assert [outcome.status for outcome in outcomes] == [RowStatus.DONE, RowStatus.DONE, RowStatus.FAILED]
    assert [len(outcome.usage) for outcome in outcomes] == [1, 0, 0]


@pytest.mark.parametrize("returned", [None, SCORE, [SCORE], [SCORE] * 3, {0: SCORE, 1: SCORE}])
def test_a_return_value_of_another_length_or_kind_fails_all_rows(run_batch: RunBatch, returned: Any) -> None:
    outcomes = run_batch(lambda x: returned, 2)
    assert [outcome.error and outcome.error.type for outcome in outcomes] == ["InvalidResultError"] * 2


def test_an_error_in_a_batch_fails_all_rows(run_batch: RunBatch) -> None:
    def function(x: list[int]) -> Any:
        raise ValueError("no")

    assert [outcome.status for outcome in run_batch(function, 2)] == [RowStatus.FAILED] * 2
