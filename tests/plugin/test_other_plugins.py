"""Other plugins: those for async tests leave evaluations alone, and pytest-xdist evaluates nothing twice."""

from __future__ import annotations

import re

import pytest

from doteval.store import Store
from tests.plugin.conftest import ALONE, Evaluate, Records

ASYNC = """
import pytest_asyncio

@pytest.fixture(scope="session")
async def client():
    yield asyncio.get_running_loop()
    print("client closed")

@pytest.fixture
async def own(client):
    assert asyncio.get_running_loop() is client
    return "own"

@pytest_asyncio.fixture
async def marked(client):
    yield asyncio.get_running_loop()

class EvalMethods:
    @pytest.fixture
    async def of_class(self, client):
        self.touched = True
        yield self
        assert self.touched

    @foreach("i", [(1,), (2,)])
    async def eval_method(self, i, of_class):
        return Score("ok", of_class is self and self.touched, ["accuracy"])

@foreach("i", [(i,) for i in range(5)])
async def eval_async(i, client, own, marked):
    return Score("ok", asyncio.get_running_loop() is client is marked and own == "own", ["accuracy"])

@foreach("i", [(1,)])
def eval_sync(i, client, own):
    return Score("ok", client.is_running(), ["accuracy"])

@pytest_asyncio.fixture
async def of_test():
    return asyncio.get_running_loop()

@pytest.mark.asyncio
async def test_of_pytest_asyncio(of_test):
    assert asyncio.get_running_loop() is of_test

@pytest.mark.anyio
async def test_of_anyio(anyio_backend_name):
    assert anyio_backend_name == "asyncio"

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio_and_anyio_leave_evaluations_alone(evaluate: Evaluate, mode: str) -> None:
    result = evaluate(
        ASYNC,
        f"--asyncio-mode={mode}",
        "-W",
        "error",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        "--fail-under=ok.accuracy=1",
        "--max-errors=0",
        plugins=("-p", "no:hypothesispytest", "-p", "no:xdist"),
    )
    result.assert_outcomes(passed=5)
    assert result.stdout.str().count("client closed") == 1


XDIST = """
import os
from pathlib import Path

@pytest.fixture(scope="session")
def model():
    Path(f"load-{os.getpid()}").touch()
    return 1

@pytest.mark.parametrize("part", range(6))
@foreach("i", [(i,) for i in range(20)])
def eval_part(i, part, model):
    with open(f"rows-{part}", "a") as file:
        file.write(f"{i} ")
    return Score("ok", part != 3, ["accuracy"])

def test_beside():
    pass
"""


def test_xdist_evaluates_nothing_twice_and_the_controller_reports(
    evaluate: Evaluate, records: Records, pytester: pytest.Pytester
) -> None:
    plugins = tuple(
        each for pair in zip(ALONE[::2], ALONE[1::2], strict=True) if "xdist" not in pair[1] for each in pair
    )
    result = evaluate(XDIST, "-n", "2", "--fail-under=eval_part[3]:ok.accuracy=0.5", plain=True, plugins=plugins)
    result.assert_outcomes(passed=6, failed=1)
    names = re.findall(r"= experiment (\S+) =", result.stdout.str())
    assert len(names) == 1
    assert re.fullmatch(r"\d{8}_\d{6}_[0-9a-f]{8}", names[0])
    for part in range(6):
        assert sorted(map(int, (pytester.path / f"rows-{part}").read_text().split())) == list(range(20))
        assert len(records(f"eval_part[{part}]", names[0])) == 20
        result.stdout.re_match_lines([rf"eval_part\[{part}\] +ok\.accuracy +{int(part != 3)}\.000 .* 20 +0 +0"])
    assert len(list(pytester.path.glob("load-*"))) == 2
    # Both workers ran for one command, which is that of the user.
    with Store.open(str(pytester.path / ".doteval" / "doteval.db"), create=False) as store:
        (command,) = store.provenance.of(store.experiments.find(names[0]))
    assert "-n 2 '--fail-under=eval_part[3]:ok.accuracy=0.5'" in command.command_line

    # The same name goes on. The controller reports a threshold that applied to nothing in any worker.
    result = evaluate(
        None,
        "-n",
        "2",
        "-k",
        "eval_part and 1",
        "--experiment",
        names[0],
        "--fail-under=no.score=1",
        plain=True,
        plugins=plugins,
    )
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["eval_part[[]1]: resumed, 20 of 20 rows were done", "--fail-under no.score=1: no *"])
