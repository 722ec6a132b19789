"""Rows and fixtures misbehave in many ways, and none affects another row."""

from __future__ import annotations

import pytest

from tests.support.fault_services import RedisServer
from tests.support.project import Project
from tests.support.troubleshooting import assert_shown

ROWS = """
import asyncio, ctypes, os, sys, threading, time
import pytest
from doteval import Result, Score, foreach

class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no message")

def deep(n):
    return deep(n + 1)

def misbehave(kind):
    if kind == "exception":
        raise KeyError("a key")
    if kind == "exit":
        sys.exit(4)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "end of session":
        pytest.exit("said so")
    if kind == "generator exit":
        raise GeneratorExit
    if kind == "odd":
        raise Odd
    if kind == "group":
        raise ExceptionGroup("two", [ValueError(1), TypeError(2)])
    if kind == "recursion":
        deep(0)
    if kind == "fail":
        pytest.fail("said so")
    if kind == "skip":
        pytest.skip("said so")
    if kind == "nothing":
        return None
    if kind == "unserializable":
        return Result(Score("ok", True, ["accuracy"]), model_response=object())
    if kind == "surrogates":
        return Result(Score("ok", True, ["accuracy"]), prompt="a\\ud800b\\x00c", model_response={"\\x00": "\\udfff"})
    if kind == "error text":
        raise ValueError("a\\ud800b\\x00c")
    if kind == "large":
        return Result(Score("ok", True, ["accuracy"]), model_response="x" * LARGE)
    if kind == "flood":
        for _ in range(20_000):
            print("flood " * 20)
        return Score("ok", True, ["accuracy"])
    if kind == "threads":
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
        return Score("ok", True, ["accuracy"])
    return Score("ok", True, ["accuracy"])

KINDS = [
    "exception", "exit", "interrupt", "end of session", "generator exit", "odd", "group", "recursion", "fail", "skip",
    "nothing", "unserializable", "surrogates", "error text", "large", "flood", "threads", "fine",
]

@foreach("kind", KINDS)
def eval_sync(kind):
    return misbehave(kind)

@foreach("kind", [*KINDS, "tasks", "cancelled"])
async def eval_async(kind):
    await asyncio.sleep(0)
    if kind == "tasks":
        asyncio.get_running_loop().create_task(asyncio.sleep(3600))
    if kind == "cancelled":
        raise asyncio.CancelledError
    return misbehave(kind)
"""

FAILED = {
    "exception": "KeyError",
    "exit": "SystemExit",
    "interrupt": "KeyboardInterrupt",
    "end of session": "Exit",
    "generator exit": "GeneratorExit",
    "odd": "Odd",
    "group": "ValueError",
    "recursion": "RecursionError",
    "fail": "Failed",
    "nothing": "InvalidResultError",
    "unserializable": "UnstorableValueError",
    "error text": "ValueError",
    "cancelled": "CancelledError",
}


def test_a_misbehaving_row_affects_no_other_row(project: Project) -> None:
    project.write("eval_it.py", ROWS.replace("LARGE", str(20_000_000)))
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    for name, records in project.records("x").items():
        found = {record.row.values["kind"]: record.outcome for record in records}
        assert {kind for kind, outcome in found.items() if outcome.status == "failed"} == set(FAILED) & set(found), name
        assert {kind: found[kind].error.type for kind in FAILED if kind in found} == {
            kind: error for kind, error in FAILED.items() if kind in found
        }
        assert found["skip"].status == "skipped"
        assert found["surrogates"].prompt == "a\ud800b\x00c"
        assert found["surrogates"].model_response == {"\x00": "\udfff"}
        assert len(found["large"].model_response) == 20_000_000
    assert len({worker.info.pid for worker in project.workers()}) == 1


def test_a_result_of_100_megabytes(project: Project) -> None:
    project.write(
        "eval_it.py",
        """
        from doteval import Result, Score, foreach
        @foreach("i", [(1,), (2,)])
        def eval_huge(i):
            return Result(Score("ok", True, ["accuracy"]), model_response="x" * 100_000_000)
        """,
    )
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    assert [len(record.outcome.model_response) for record in project.records("x")["eval_huge"]] == [100_000_000] * 2


@pytest.mark.parametrize("define", ["def", "async def"])
def test_an_endless_loop_ends_at_the_row_timeout(project: Project, define: str) -> None:
    project.write(
        "eval_it.py",
        f"""
        import time
        from doteval import Score, foreach
        @foreach("i", [(i,) for i in range(10)])
        {define} eval_endless(i):
            while i == 4:
                pass
            return Score("ok", True, ["accuracy"])
        """,
    )
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--row-timeout", "1")
    records = project.records("x")["eval_endless"]
    assert [record.row.index for record in records if record.outcome.status == "failed"] == [4]
    assert records[4].outcome.error is not None
    assert records[4].outcome.error.error_class == "timeout"


STUCK = {
    # The call holds the GIL, so no thread of the process can run, and it looks at no signal.
    "adding": "sum(range(10**13))",
    "sleeping": "time.sleep(3600)",
}


@pytest.mark.parametrize(("define", "stuck"), [("def", "adding"), ("async def", "sleeping")])
def test_a_row_stuck_in_c_code_ends_at_the_row_timeout_with_its_process(
    project: Project, define: str, stuck: str
) -> None:
    project.write(
        "eval_it.py",
        f"""
        import asyncio, time
        from doteval import Score, foreach
        @foreach("i", [(i,) for i in range(10)])
        {define} eval_stuck(i):
            tell(f"begin {{i}}")
            {"await asyncio.sleep(0.1)" if define == "async def" else "pass"}
            if i == 4:
                {STUCK[stuck]}
            return Score("ok", True, ["accuracy"])
        """,
    )
    done = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--row-timeout", "1")
    records = project.records("x")["eval_stuck"]
    assert len(records) == 10
    assert [record.row.index for record in records if record.outcome.status != "done"] == [4]
    error, seconds = records[4].outcome.error, records[4].outcome.seconds
    assert error is not None
    assert (error.type, error.error_class) == ("RowTimeoutError", "timeout")
    begun = sum(what.startswith("begin ") for what in project.counts().elements())
    print(f"lost: 0 of 10 rows; executed again: {begun - 10}; the stuck row was ended after {seconds:.1f} s")
    # These may run again: rows that had ended but could not be stored, async rows beside it, and the row itself, alone,
    # so that no other row is blamed.
    assert begun - 10 <= 10
    assert 1.0 < seconds < 60.0
    assert "was killed: a row was over its time and could not be interrupted" in done.stdout + done.stderr


def test_a_fixture_that_fails_to_load_everywhere_fails_its_evaluation_only(project: Project) -> None:
    project.write(
        "eval_it.py",
        """
        import pytest
        from doteval import Score, foreach

        @pytest.fixture(scope="session")
        def broken():
            tell("+broken")
            raise RuntimeError("no GPU here")

        @pytest.fixture(scope="session")
        def absent():
            pytest.skip("not on this machine")

        @foreach("i", [(i,) for i in range(50)])
        def eval_broken(i, broken):
            return Score("ok", True, ["accuracy"])

        @foreach("i", [(i,) for i in range(50)])
        def eval_skipped(i, absent):
            return Score("ok", True, ["accuracy"])

        @foreach("i", [(i,) for i in range(50)])
        def eval_fine(i):
            return Score("ok", True, ["accuracy"])
        """,
    )
    done = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "2", check=5)
    assert_shown("fixture-fails", done.stderr)
    shown = {each["name"]: each for each in project.json("show", "x")["evaluations"]}
    assert shown["eval_broken"]["status"] == "failed"
    assert "no GPU here" in shown["eval_broken"]["reason"]
    assert shown["eval_skipped"]["status"] == "skipped"
    assert "not on this machine" in shown["eval_skipped"]["reason"]
    assert len(project.records("x")["eval_fine"]) == 50
    assert project.records("x")["eval_broken"] == []


def test_a_fixture_that_fails_to_load_on_one_worker_process_is_served_by_the_other(project: Project) -> None:
    project.write(
        "eval_it.py",
        """
        import os, time
        import pytest
        from doteval import Score, foreach

        @pytest.fixture(scope="session")
        def picky():
            try:
                os.close(os.open("taken", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return "fine"
            raise RuntimeError("the first one has no luck")

        @foreach("i", [(i,) for i in range(100)])
        def eval_picky(i, picky):
            time.sleep(0.01)
            return Score("ok", True, ["accuracy"])
        """,
    )
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "2")
    assert len(project.records("x")["eval_picky"]) == 100


SLOW_TO_FAIL = """
import os, time
import pytest
from doteval import Score, foreach

@pytest.fixture(scope="session")
def model():
    tell("+model")
    mine = loads()
    # Whenever one process has failed, the next one is loading.
    while loads() == mine and not os.path.exists("mended"):
        time.sleep(0.05)
    if not os.path.exists("mended"):
        raise RuntimeError("no GPU here")

def loads():
    return sum(line.endswith("+model") for line in open("events.log").read().splitlines())

@foreach("i", [(i,) for i in range(50)])
def eval_it(i, model):
    tell(f"begin {i}")
    return Score("ok", True, ["accuracy"])
"""


def test_fixtures_that_fail_after_long_loads_in_turn_fail_the_evaluation_and_can_be_mended(
    project: Project, broker: RedisServer
) -> None:
    """Each process loads for so long that another one is loading whenever one has failed."""
    project.write("eval_it.py", SLOW_TO_FAIL)
    with project.started("worker", ".", "--processes", "2"):
        done = project.run("submit", "eval_it.py", "--experiment", "x", check=None)
        assert done.returncode != 0
        (shown,) = project.json("show", "x")["evaluations"]
        assert shown["status"] == "failed"
        assert "no GPU here" in shown["reason"]
        with project.store() as store:
            (evaluation,) = store.evaluations.of(store.experiments.find("x"))
            failures = store.loads.failures(evaluation.id)
        # One load each: the evaluation does not wait for a replacement that is still loading.
        before = [each for each in failures if evaluation.finished_at and each.failed_at <= evaluation.finished_at]
        assert len(before) == 2, project.output()
        # The cause is mended, and the same service runs the rows: old failures do not count.
        (project.path / "mended").touch()
        project.run("submit", "eval_it.py", "--experiment", "x")
    records = project.records("x")["eval_it"]
    begun = sum(count for what, count in project.counts().items() if what.startswith("begin "))
    print(f"{len(before)} loads failed; lost: {50 - len(records)} of 50 rows; executed again: {begun - 50}")
    assert ({record.outcome.status for record in records}, len(records), begun) == ({"done"}, 50, 50)


def test_a_teardown_that_raises_keeps_the_results(project: Project) -> None:
    project.write(
        "eval_it.py",
        """
        import pytest
        from doteval import Score, foreach

        @pytest.fixture(scope="session")
        def untidy():
            yield 1
            raise RuntimeError("cannot tidy up")

        @pytest.fixture
        def untidy_row():
            yield 1
            raise RuntimeError("cannot tidy up this row")

        @foreach("i", [(i,) for i in range(20)])
        def eval_untidy(i, untidy, untidy_row):
            return Score("ok", True, ["accuracy"])
        """,
    )
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    records = project.records("x")["eval_untidy"]
    assert len(records) == 20
    assert all(record.outcome.scores[0].value is True for record in records)
    assert "cannot tidy up this row" in records[0].outcome.error.message
