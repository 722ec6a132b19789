"""@batch: lists in, a list of results out."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Evaluate, Records


def test_batches_take_lists_and_return_a_result_for_each_row(evaluate: Evaluate, records: Records) -> None:
    result = evaluate(
        """
made = []

@pytest.fixture
def of_batch():
    made.append(1)
    return len(made)

@batch("texts, expected", [(f"t{i}", f"t{i % 7}") for i in range(10)], batch_size=4)
def eval_sync(texts, expected, of_batch):
    assert of_batch == len(made)
    print("sync", texts, expected)
    return [Result(exact_match(text, wanted), prompt=text) for text, wanted in zip(texts, expected)]

@batch("texts", [{"texts": str(i)} for i in range(5)], batch_size=2)
async def eval_async(texts):
    await asyncio.sleep(0)
    return tuple(Score("length", len(text), ["mean"]) for text in texts)

@batch("i", [(i,) for i in range(6)], batch_size=3)
def eval_too_few(i):
    return [Score("ok", True, ["accuracy"])] * (2 if 0 in i else 3)

@batch("i", [(1,), (2,)])
def eval_not_a_list(i):
    return Score("ok", True, ["accuracy"])

@batch("i", [(1,), (2,), (3,)])
def eval_one_is_nothing(i):
    return [Score("ok", True, ["accuracy"]), None, Result(Score("ok", False, ["accuracy"]), error="mine")]

@batch("i", [(1,), (2,)])
def eval_raises(i):
    raise LookupError("no such model")

def test_fixtures_are_made_for_each_batch():
    assert len(made) == 3
"""
    )
    result.assert_outcomes(passed=7)
    for lists in (
        "sync ['t0', 't1', 't2', 't3'] ['t0', 't1', 't2', 't3']",
        "sync ['t4', 't5', 't6', 't7'] ['t4', 't5', 't6', 't0']",
        "sync ['t8', 't9'] ['t1', 't2']",
    ):
        assert lists in result.stdout.str()
    sync = records("eval_sync")
    assert [record.outcome.scores[0].value for record in sync] == [True] * 7 + [False] * 3
    assert [record.outcome.prompt for record in sync] == [f"t{i}" for i in range(10)]
    assert [record.row.values for record in sync][3] == {"texts": "t3", "expected": "t3"}
    assert [record.outcome.status for record in records("eval_async")] == ["done"] * 5

    short = records("eval_too_few")
    assert [record.outcome.status for record in short] == ["failed"] * 3 + ["done"] * 3
    assert "returned 2 results for a batch of 3 rows" in short[0].outcome.error.message

    assert "returned Score for a batch of 2 rows" in records("eval_not_a_list")[1].outcome.error.message
    assert [record.outcome.status for record in records("eval_one_is_nothing")] == ["done", "failed", "failed"]
    raised = records("eval_raises")
    assert [record.outcome.error.type for record in raised] == ["LookupError"] * 2


def test_a_short_row_fails_alone_and_a_resumed_batch_has_only_failed_rows(
    evaluate: Evaluate, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
import os

@batch("a, b", [(1, 1), (2,), (3, 3), (4, 5)], batch_size=4)
def eval_rows(a, b):
    print("batch", a, b)
    if os.environ.get("MENDED") is None:
        return [Score("same", x == y, ["accuracy"]) if x < 4 else "?" for x, y in zip(a, b)]
    return [Score("same", x == y, ["accuracy"]) for x, y in zip(a, b)]
"""
    first = evaluate(source)
    first.stdout.fnmatch_lines(["*batch [[]1, 3, 4[]] [[]1, 3, 5[]]"])
    assert [record.outcome.status for record in records("eval_rows")] == ["done", "failed", "done", "failed"]

    monkeypatch.setenv("MENDED", "1")
    second = evaluate()
    second.stdout.fnmatch_lines(["*batch [[]4[]] [[]5[]]", "*resumed, 2 of 4 rows were done"])
    assert [record.outcome.status for record in records("eval_rows")] == ["done", "failed", "done", "done"]
