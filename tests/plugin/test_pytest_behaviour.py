"""Evaluations behave like tests in pytest: selection, marks, parameters, reports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doteval.store import Store
from tests.plugin.conftest import ALONE, Evaluate, Records
from tests.support.passing_time import let_pass, work_again
from tests.support.troubleshooting import assert_shown

MIXED = """
@foreach("i", [(1,), (2,)])
def eval_good(i):
    print("a word from a row")
    return Score("ok", True, ["accuracy"])

@foreach("i", [(1,), (2,)])
def eval_bad(i):
    print("a word from a bad row")
    return Score("ok", False, ["accuracy"])

def test_beside():
    print("a word from a test")

# An evaluation: dotevals took decorated functions of any name that pytest collects.
@foreach("i", [(1,)])
def test_decorated(i):
    return Score("ok", i == 1, ["accuracy"])

class EvalGroup:
    @foreach("i", [(1,)])
    def eval_method(self, i):
        return Score("ok", True, ["accuracy"])
"""
THRESHOLD = ("--fail-under", "eval_bad:ok.accuracy=0.5")


def test_selection_and_verbosity(evaluate: Evaluate, pytester: pytest.Pytester) -> None:
    collected = evaluate(MIXED, "--collect-only", "-q", plain=True)
    collected.stdout.fnmatch_lines(
        [
            "eval_it.py::eval_good",
            "eval_it.py::eval_bad",
            "eval_it.py::test_beside",
            "eval_it.py::test_decorated",
            "eval_it.py::EvalGroup::eval_method",
        ]
    )
    assert not pytester.path.joinpath(".doteval").exists()

    evaluate(None, "-k", "group or beside", plain=True).assert_outcomes(passed=2, deselected=3)
    evaluate(None, "-m", "doteval", "--strict-markers", "--durations=2", plain=True).assert_outcomes(
        passed=4, deselected=1
    )
    evaluate(None, *THRESHOLD, "-x", "-p", "no:terminal", plain=True)

    quiet = evaluate(None, "-q", "-m", "not doteval", plain=True)
    quiet.assert_outcomes(passed=1, deselected=4)
    assert "experiment" not in quiet.stdout.str()

    # Output of rows is captured, and shown with an evaluation that fails.
    verbose = evaluate(None, "-v", *THRESHOLD, "--experiment", "named", plain=True)
    verbose.assert_outcomes(passed=4, failed=1)
    verbose.stdout.re_match_lines(
        [r"eval_it\.py::eval_good PASSED +\[ 20%\]", r"eval_it\.py::eval_bad FAILED +\[ 40%\]"]
    )
    assert "a word from a bad row" in verbose.stdout.str()
    assert "a word from a row" not in verbose.stdout.str()
    verbose.stdout.fnmatch_lines(["*= experiment named =*"])
    assert "a word from a row" in evaluate(None, "-s", plain=True).stdout.str()


def test_a_run_without_a_name_makes_a_new_experiment(evaluate: Evaluate) -> None:
    names = set()
    for _ in range(2):
        result = evaluate('@foreach("i", [(1,)])\ndef eval_it(i):\n    return Score("ok", True)', plain=True)
        found = re.search(r"= experiment (\d{8}_\d{6}_[0-9a-f]{8}) =", result.stdout.str())
        assert found is not None
        names.add(found[1])
    assert len(names) == 2


def test_the_summary_shows_the_time_worked_of_all_runs(evaluate: Evaluate, pytester: pytest.Pytester) -> None:
    evaluate("""
@foreach("i", range(2))
def eval_it(i):
    return Result(exact_match(i, i))
""")
    with Store.open(str(pytester.path / ".doteval" / "doteval.db")) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        let_pass(store, 86400.0)
        work_again(store, evaluation, 7500.0)
        let_pass(store, 86400.0)
    evaluate().stdout.fnmatch_lines(["*2 h 05 min*"])


def test_marks_of_pytest(evaluate: Evaluate, pytester: pytest.Pytester) -> None:
    result = evaluate(
        """
import sys
ok = Score("ok", False, ["accuracy"])

@pytest.mark.skip(reason="not today")
@foreach("i", [(1,)])
def eval_skipped(i):
    raise AssertionError("never called")

@pytest.mark.skipif(sys.version_info > (3,), reason="not on this Python")
@foreach("i", [(1,)])
def eval_skipped_if(i):
    raise AssertionError("never called")

@pytest.mark.xfail(reason="a weak model")
@foreach("i", [(1,)])
def eval_expected_to_fail(i):
    return ok

@pytest.mark.xfail(run=False)
@foreach("i", [(1,)])
def eval_expected_to_crash(i):
    raise AssertionError("never called")

@pytest.fixture
def used(request):
    print("used for", request.node.name)
    assert request.node.get_closest_marker("level").args == (3,)

@pytest.mark.usefixtures("used")
@pytest.mark.level(3)
@foreach("i", [(1,), (2,)])
def eval_uses(i):
    return Score("other", True, ["accuracy"])

@pytest.mark.filterwarnings("error")
@foreach("i", [(1,)])
def eval_warns(i):
    import warnings
    warnings.warn("of a row")

@foreach("i", [(1,), (2,)])
def eval_rows_skip(i):
    pytest.skip("no answer in this row")

@foreach("i", [(1,), (2,)])
def eval_some_rows_skip(i):
    if i == 1:
        pytest.skip("no answer in this row")
    return Score("other", True, ["accuracy"])

class TestMarked:
    pytestmark = pytest.mark.level(4)

    @foreach("i", [(1,)])
    def eval_marked(self, i, request):
        assert request.node.get_closest_marker("level").args == (4,)
        assert request.cls is type(self) and request.instance is self and request.function.__name__ == "eval_marked"
        return Score("other", True, ["accuracy"])
""",
        "--fail-under=eval_expected_to_fail:ok.accuracy=0.5",
        "-rsx",
        "-o",
        "markers=level",
    )
    result.assert_outcomes(passed=4, skipped=3, xfailed=2)
    assert result.stdout.str().count("used for eval_uses") == 2
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*not today",
            "SKIPPED*not on this Python",
            "SKIPPED*all 2 rows were skipped: no answer in this row",
            "XFAIL*eval_expected_to_fail - a weak model",
        ]
    )
    result.stdout.re_match_lines([r"eval_some_rows_skip +other\.accuracy +1\.000 .* 1 +0 +1"])
    result.stdout.fnmatch_lines(["eval_warns: 1 × UserWarning: of a row*"])


def test_parameters(evaluate: Evaluate, records: Records, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
import pytest

@pytest.fixture(params=["cpu", "gpu"])
def device(request):
    return request.param

@pytest.fixture(scope="session")
def model(request):
    print(f"up:{request.param}")
    yield request.param.upper()
    print(f"down:{request.param}")

@pytest.fixture(autouse=True)
def always(request):
    request.node.always = True

def pytest_generate_tests(metafunc):
    if "generated" in metafunc.fixturenames:
        metafunc.parametrize("generated", [7, 8])
"""
    )
    result = evaluate(
        """
row = [("a",), ("b",)]
done = Score("ok", True, ["accuracy"])

@pytest.mark.parametrize("size", [1, 2], ids=["small", "large"])
@foreach("text", row)
def eval_direct(text, size):
    return Result(done, prompt=(text, size))

@pytest.mark.parametrize("model", ["one", "two"], indirect=True)
@foreach("text", row)
def eval_indirect(text, model):
    return Result(done, prompt=model)

@pytest.mark.parametrize("model", ["one", "two"], indirect=True)
@pytest.mark.parametrize("size", [1, 2])
@foreach("text", row)
async def eval_both(text, model, size):
    return Result(done, prompt=(model, size))

@foreach("text", row)
def eval_generated(text, generated):
    return Result(done, prompt=generated)

@foreach("text", row)
def eval_of_fixture(text, device, request):
    assert request.node.always
    return Result(done, prompt=device)

class EvalClass:
    @pytest.mark.parametrize("size", [pytest.param(1, id="tiny"), pytest.param(2, marks=pytest.mark.skip)])
    @foreach("text", row)
    def eval_method(self, text, size):
        return Result(done, prompt=size)

@foreach("text", row)
def eval_plain(text):
    return done
""",
        "-v",
    )
    result.assert_outcomes(passed=14, skipped=1)
    names = re.findall(r"eval_it\.py::(\S+) ", result.stdout.str())
    assert set(names) >= {
        "eval_direct[small]", "eval_direct[large]", "eval_indirect[one]", "eval_indirect[two]",
        "eval_both[1-one]", "eval_both[2-two]", "eval_generated[7]", "eval_of_fixture[gpu]",
        "EvalClass::eval_method[tiny]", "eval_plain",
    }  # fmt: skip
    assert "None" not in " ".join(names)
    assert records("eval_direct[large]")[1].outcome.prompt == ("b", 2)
    assert records("eval_indirect[two]")[0].outcome.prompt == "TWO"
    assert records("eval_of_fixture[gpu]")[0].outcome.prompt == "gpu"
    assert records("EvalClass::eval_method[tiny]")[0].outcome.prompt == 1
    # pytest orders the items by parameter, so that each is loaded once.
    assert re.findall(r"(?:up|down):\w+", result.stdout.str()) == ["up:one", "down:one", "up:two", "down:two"]


def test_errors_of_an_evaluation_have_no_traceback_of_doteval(evaluate: Evaluate) -> None:
    result = evaluate(
        """
def broken():
    yield (1,)
    raise KeyError("of the dataset")

@foreach("i", broken)
def eval_broken_dataset(i):
    return Score("ok", True, ["accuracy"])

@foreach("i", [])
def eval_empty(i):
    return Score("ok", True, ["accuracy"])

@foreach("i", [(object(),)])
def eval_unstorable(i):
    return Score("ok", True, ["accuracy"])

@foreach("i", "missing.csv")
def eval_no_file(i):
    return Score("ok", True, ["accuracy"])

def skipping():
    pytest.skip("no data here")

@foreach("i", skipping)
def eval_no_data(i):
    return Score("ok", True, ["accuracy"])

@foreach("i", [(1,)])
def eval_fine(i):
    return Score("ok", True, ["accuracy"])
""",
        "-rs",
    )
    result.assert_outcomes(failed=4, passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*raised KeyError after 1 row*",
            "*KeyError: 'of the dataset'*",
            "the dataset of eval_empty is empty",
            "row 0 of eval_unstorable: *",
            "*missing.csv*",
            "SKIPPED*no data here",
        ]
    )
    assert "local_evaluation.py" not in result.stdout.str()


def test_an_interruption_keeps_done_rows_and_tears_down(
    evaluate: Evaluate, records: Records, pytester: pytest.Pytester
) -> None:
    result = evaluate(
        """
from pathlib import Path

@pytest.fixture(scope="session")
def model():
    yield
    print("-session")

@pytest.fixture
def own():
    yield
    print("-row")

@foreach("i", [(i,) for i in range(5)])
def eval_sync(i, own, model):
    if i == 2 and not Path("again").exists():
        raise KeyboardInterrupt
    return Score("ok", True, ["accuracy"])
"""
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert re.findall(r"-row|-session", result.stdout.str()) == ["-row", "-row", "-row", "-session"]
    result.stdout.fnmatch_lines(["eval_sync: 3 rows are left: interrupted"])
    assert [record.row.index for record in records("eval_sync")] == [0, 1]
    pytester.path.joinpath("again").touch()
    assert_shown("rows-not-run-again", evaluate().stdout.str())
    assert len(records("eval_sync")) == 5


def test_ctrl_c_ends_async_rows_in_flight(pytester: pytest.Pytester, records: Records) -> None:
    pytester.path.joinpath("eval_it.py").write_text(
        """
import asyncio, pytest
from pathlib import Path
from doteval import Score, foreach

@pytest.fixture
def own():
    yield
    print("-row")

@foreach("i", [(i,) for i in range(50)])
async def eval_async(i, own):
    if i == 29:
        Path("reached").touch()
    await asyncio.sleep(0 if i < 20 else 600)
    return Score("ok", True, ["accuracy"])
"""
    )
    command = [sys.executable, "-m", "pytest", "eval_it.py", "-s", "--experiment", "x", *ALONE]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True)
    reached = pytester.path / "reached"
    deadline = time.monotonic() + 60
    while not reached.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=180)[0]
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    stored = records("eval_async")
    assert [record.row.index for record in stored] == list(range(20))
    assert output.count("-row") == 30, output


def test_two_commands_at_once_store_every_row_once(pytester: pytest.Pytester, records: Records) -> None:
    pytester.path.joinpath("eval_it.py").write_text(
        """
import time
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(200)])
def eval_it(i):
    time.sleep(0.002)
    return Score("ok", True, ["accuracy"])
"""
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "eval_it.py",
        "-q",
        "--experiment",
        "x",
        *ALONE,
        "-p",
        "no:cacheprovider",
    ]
    processes = [subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert [record.row.index for record in records("eval_it")] == list(range(200))
    assert all(re.search(r"eval_it +ok\.accuracy +1\.000 .* 200 +0 +0", output) for output in outputs), outputs


def test_nothing_is_written_when_nothing_is_evaluated(pytester: pytest.Pytester, run_pytest: Evaluate) -> None:
    pytester.makepyfile("import pytest\n@pytest.fixture(scope='session')\ndef s(): yield 1\ndef test_it(s): pass")
    result = run_pytest()
    result.assert_outcomes(passed=1)
    assert not Path(pytester.path, ".doteval").exists()


def test_pytest_runs_without_standard_streams(pytester: pytest.Pytester, records: Records) -> None:
    """Under daemons and cron they are closed, and pytest alone cannot run."""
    pytester.path.joinpath("eval_it.py").write_text(
        'from doteval import Score, foreach\n@foreach("i", [(1,), (2,)])\ndef eval_rows(i):\n    return Score("i", i)\n'
    )
    command = [sys.executable, "-m", "pytest", "eval_it.py", "--experiment", "x", *ALONE, "-p", "no:cacheprovider"]
    ran = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], cwd=pytester.path, check=False)
    assert ran.returncode == 0
    assert [record.outcome.scores[0].value for record in records("eval_rows")] == [1, 2]


def test_batch_mode_is_not_left_out_in_silence(pytester: pytest.Pytester, run_pytest: Evaluate) -> None:
    """Only worker processes send batches."""
    pytester.path.joinpath("eval_it.py").write_text(
        "import pytest\nfrom doteval import Score, foreach\n"
        "@pytest.mark.doteval(batch=True)\n"
        '@foreach("i", [(1,)])\ndef eval_marked(i):\n    return Score("i", i)\n'
        '@foreach("i", [(1,)])\ndef eval_plain(i):\n    return Score("i", i)\n'
    )
    result = run_pytest("eval_it.py")
    result.stdout.fnmatch_lines("eval_marked sends its requests live, at their full price: *doteval submit*")
    result.stdout.no_fnmatch_line("eval_plain sends*")
