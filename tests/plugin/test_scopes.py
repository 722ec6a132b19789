"""Fixtures of every scope are created and torn down where pytest's rules say, for rows too."""

from __future__ import annotations

import re

import pytest

from tests.plugin.conftest import Evaluate, count

FIXTURES = """
@pytest.fixture(scope="session")
def of_session():
    print("+session")
    yield "s"
    print("-session")

@pytest.fixture(scope="package")
def of_package():
    print("+package")
    yield "p"
    print("-package")

@pytest.fixture(scope="module")
def of_module(of_session):
    print("+module")
    yield "m"
    print("-module")

@pytest.fixture(scope="class")
def of_class(of_module):
    print("+class")
    yield "c"
    print("-class")

@pytest.fixture
def of_row(of_module):
    print("+row")
    yield object()
    print("-row")
"""


def events(result: pytest.RunResult) -> list[str]:
    return re.findall(r"[+-](?:session|package|module|class|row|other)\b|call \w+", result.stdout.str())


def test_a_function_fixture_is_made_and_torn_down_for_every_row(evaluate: Evaluate) -> None:
    result = evaluate(
        FIXTURES
        + """
@foreach("i", [(1,), (2,), (3,)])
def eval_rows(i, of_row, of_session):
    print(f"call {i}")
    return Score("ok", True, ["accuracy"])
"""
    )
    result.assert_outcomes(passed=1)
    row = ["+row", "call 1", "-row", "+row", "call 2", "-row", "+row", "call 3", "-row"]
    assert events(result) == ["+session", "+module", *row, "-module", "-session"]


def test_wide_fixtures_are_shared_by_evaluations_and_tests(evaluate: Evaluate) -> None:
    result = evaluate(
        FIXTURES
        + """
seen = []

@foreach("i", [(1,), (2,)])
def eval_first(i, of_module, of_package):
    seen.append(i)
    return Score("ok", True, ["accuracy"])

@foreach("i", [(3,)])
def eval_second(i, of_module):
    seen.append(i)
    return Score("ok", True, ["accuracy"])

def test_sees_what_the_rows_did(of_module):
    print("call test")
    assert seen == [1, 2, 3]
"""
    )
    result.assert_outcomes(passed=3)
    assert sorted(events(result)) == sorted(
        ["+session", "+package", "+module", "call test", "-module", "-package", "-session"]
    )


def test_a_class_fixture_lives_as_long_as_its_class_and_every_row_has_its_own_instance(evaluate: Evaluate) -> None:
    result = evaluate(
        FIXTURES
        + """
class EvalFirst:
    @foreach("i", [(1,), (2,)])
    def eval_a(self, i, of_class):
        assert not hasattr(self, "touched")
        self.touched = True
        return Score("ok", True, ["accuracy"])

    @foreach("i", [(3,), (4,)])
    def eval_b(self, i, of_class):
        return Score("ok", True, ["accuracy"])

class TestSecond:
    @foreach("i", [(5,)])
    def eval_c(self, i, of_class):
        return Score("ok", True, ["accuracy"])

    def test_beside(self, of_class):
        pass
"""
    )
    result.assert_outcomes(passed=4)
    assert count(result, "+class") == count(result, "-class") == 2
    assert events(result) == ["+session", "+module", "+class", "-class", "+class", "-class", "-module", "-session"]


def test_module_fixtures_are_torn_down_between_modules_and_session_fixtures_after_both(
    pytester: pytest.Pytester, evaluate: Evaluate
) -> None:
    pytester.makeconftest("import pytest\n" + FIXTURES)
    body = """
from doteval import Score, foreach
@foreach("i", [(1,), (2,)])
def eval_it(i, of_module, of_session):
    return Score("ok", True, ["accuracy"])
"""
    pytester.path.joinpath("eval_one.py").write_text(body)
    pytester.path.joinpath("eval_two.py").write_text(body)
    result = pytester.runpytest_subprocess("-s", "--experiment", "x")
    result.assert_outcomes(passed=2)
    assert events(result) == ["+session", "+module", "-module", "+module", "-module", "-session"]


@pytest.mark.parametrize(("kind", "concurrent"), [("async", 50), ("sync", 8)])
def test_overlapping_rows_have_function_fixtures_of_their_own(evaluate: Evaluate, kind: str, concurrent: int) -> None:
    pause, define = ("await asyncio.sleep(0.001)", "async def") if kind == "async" else ("time.sleep(0.001)", "def")
    result = evaluate(
        f"""
import threading, time
made, torn, owners, peak, lock = [], [], {{}}, [0], threading.Lock()

@pytest.fixture(scope="session")
def shared():
    yield []
    print(f"made {{len(made)}} torn {{len(torn)}} peak {{peak[0]}} live {{len(owners)}}")

@pytest.fixture
def inner(shared):
    made.append(1)
    token = object()
    yield token
    torn.append(1)

@pytest.fixture
def own(inner, tmp_path, request):
    request.addfinalizer(lambda: owners.pop(id(inner)))
    return inner

@foreach("i", [(i,) for i in range(400)])
{define} eval_overlap(i, own, inner, tmp_path):
    assert own is inner
    with lock:
        assert id(inner) not in owners
        owners[id(inner)] = i
        peak[0] = max(peak[0], len(owners))
    # The first rows wait for each other, so a window that opens less wide than it should fails the test.
    while peak[0] < {concurrent}:
        {pause}
    {pause}
    assert owners[id(inner)] == i
    (tmp_path / "mine").touch(exist_ok=False)
    return Score("ok", True, ["accuracy"])
""",
        "--concurrent",
        str(concurrent),
    )
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([rf".*made 400 torn 400 peak {concurrent} live 0"])
    result.stdout.re_match_lines([r"eval_overlap +ok\.accuracy +1\.000 .* 400 +0 +0"])


def test_fixtures_looked_up_during_the_call_belong_to_the_row(evaluate: Evaluate) -> None:
    result = evaluate(
        """
@pytest.fixture
def late():
    print("+row")
    yield object()
    print("-row")

seen = []

@foreach("i", [(i,) for i in range(20)])
async def eval_late(i, request):
    await asyncio.sleep(0.001)
    seen.append(request.getfixturevalue("late"))
    await asyncio.sleep(0.001)
    return Score("ok", request.getfixturevalue("late") is seen[-1] or True, ["accuracy"])

def test_all_different():
    assert len({id(value) for value in seen}) == 20
""",
        "--concurrent",
        "10",
    )
    result.assert_outcomes(passed=2)
    assert count(result, "+row") == count(result, "-row") == 20


def test_async_fixtures_share_the_loop_of_the_rows(evaluate: Evaluate) -> None:
    result = evaluate(
        """
@pytest.fixture(scope="session")
async def client():
    print("+session")
    yield asyncio.get_running_loop()
    assert asyncio.get_running_loop()
    print("-session")

@pytest.fixture
async def per_row(client):
    assert asyncio.get_running_loop() is client
    return client

@foreach("i", [(i,) for i in range(10)])
async def eval_loop(i, per_row, client):
    return Score("same", asyncio.get_running_loop() is client is per_row, ["accuracy"])

@foreach("i", [(1,)])
def eval_sync(i, client):
    return Score("same", client is not None, ["accuracy"])
"""
    )
    result.assert_outcomes(passed=2)
    assert events(result) == ["+session", "-session"]
    result.stdout.re_match_lines([r"eval_loop +same\.accuracy +1\.000 "])


def test_a_failing_setup_and_a_failing_teardown_belong_to_their_row(evaluate: Evaluate, records) -> None:  # type: ignore[no-untyped-def]
    result = evaluate(
        """
@pytest.fixture
def fragile(request):
    i = len(made)
    made.append(i)
    if i == 1:
        raise RuntimeError("no set-up")
    yield i
    if i == 2:
        raise RuntimeError("no teardown")

made = []

@foreach("i", [(0,), (1,), (2,), (3,)])
def eval_fragile(i, fragile):
    return Score("ok", True, ["accuracy"])
"""
    )
    result.assert_outcomes(passed=1)
    stored = records("eval_fragile")
    assert [record.outcome.status for record in stored] == ["done", "failed", "done", "done"]
    assert "no set-up" in stored[1].outcome.error.message
    assert "no teardown" in stored[2].outcome.error.message
    assert stored[2].outcome.scores[0].value is True


def test_a_session_fixture_that_skips_skips_the_evaluation(evaluate: Evaluate) -> None:
    result = evaluate(
        """
@pytest.fixture(scope="session")
def model():
    pytest.skip("no GPU here")

@foreach("i", [(1,)])
def eval_skipped(i, model):
    return Score("ok", True, ["accuracy"])
""",
        "-rs",
    )
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no GPU here*"])
