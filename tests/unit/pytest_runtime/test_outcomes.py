"""What marks and missing fixtures say of an evaluation before it runs, and how an exception ends it."""

from __future__ import annotations

import pytest

from doteval.core.experiments import Ending, EvaluationStatus
from doteval.core.states import EvaluationEnd
from doteval.errors import DatasetError, EvaluationFileError, StoreError
from doteval.pytest_runtime.embedded_session import Collected
from doteval.pytest_runtime.outcomes import ending_of, runnable, stop_before_rows
from tests.support.troubleshooting import assert_shown
from tests.unit.conftest import InSession

HEADER = """
import pytest
from doteval import Score, foreach

def never():
    raise AssertionError("the dataset was opened")
"""
ROWS = '@foreach("x", never)\n'
CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def asks(missing_below): ...

@pytest.fixture
def model(): ...

def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "eval_at_collection":
            item.add_marker(pytest.mark.skip(reason="added at collection"))
"""
MARKED = {
    "eval_skip": '@pytest.mark.skip(reason="not today")',
    "eval_skip_bare": "@pytest.mark.skip",
    "eval_skipif": '@pytest.mark.skipif(True, reason="no GPU here")',
    "eval_skipif_not": '@pytest.mark.skipif(False, reason="no GPU here")',
    "eval_skipif_text": "@pytest.mark.skipif(\"os.environ.get('NO_SUCH_KEY') is None\", reason='no key')",
    "eval_at_collection": "",
    "eval_not_run": '@pytest.mark.xfail(reason="crashes", run=False)',
    "eval_xfail": '@pytest.mark.xfail(reason="weak")',
    "eval_plain": "",
}


def source(marked: dict[str, str], parameters: str = "x") -> str:
    return HEADER + "".join(f"\n{mark}\n{ROWS}def {name}({parameters}): ...\n" for name, mark in marked.items())


def stops(collected: Collected) -> dict[str, str | None]:
    found = {item.name: stop_before_rows(item) for item in collected.items}
    return {name: None if stop is None else str(stop) for name, stop in found.items()}


def test_marks_stop_an_evaluation_before_its_dataset_is_opened(in_session: InSession) -> None:
    assert in_session(stops, {"conftest.py": CONFTEST, "eval_it.py": source(MARKED)}) == {
        "eval_skip": "not today",
        "eval_skip_bare": "unconditional skip",
        "eval_skipif": "no GPU here",
        "eval_skipif_not": None,
        "eval_skipif_text": "no key",
        "eval_at_collection": "added at collection",
        "eval_not_run": "[NOTRUN] crashes",
        "eval_xfail": None,
        "eval_plain": None,
    }


def test_pytests_options_for_marks_are_obeyed(in_session: InSession) -> None:
    files = {"eval_it.py": source({"eval_not_run": MARKED["eval_not_run"], "eval_skip": MARKED["eval_skip"]})}
    assert in_session(stops, files, ".", "--runxfail") == {"eval_not_run": None, "eval_skip": "not today"}
    without = in_session(stops, files, ".", "-p", "no:skipping")
    assert without == {"eval_not_run": None, "eval_skip": None}


@pytest.mark.parametrize(
    ("mark", "parameters", "missing", "remedy"),
    [
        ("", "x, modle", "modle", "Did you mean 'model'?"),
        (
            "@pytest.mark.usefixtures('absent')",
            "x",
            "absent",
            "List those that exist with: pytest --fixtures eval_it.py",
        ),
        ("", "x, asks, request, tmp_path", "missing_below", "List those that exist with: pytest --fixtures eval_it.py"),
    ],
    ids=["parameter", "usefixtures", "fixture of a fixture"],
)
def test_a_fixture_that_does_not_exist_is_named_in_pytests_words(
    in_session: InSession, mark: str, parameters: str, missing: str, remedy: str
) -> None:
    def body(collected: Collected) -> None:
        (item,) = collected.items
        stop = stop_before_rows(item)
        assert isinstance(stop, EvaluationFileError)
        assert stop.message == f"eval_it.py::eval_it: fixture {missing!r} not found"
        assert stop.remedy == remedy
        if missing == "modle":
            assert_shown("fixture-not-found", stop)
        refused = (EvaluationStatus.FAILED, EvaluationEnd.EVALUATION_REFUSED)
        assert ending_of(item, stop) == Ending(*refused, f"fixture {missing!r} not found")
        assert runnable(collected.items) == []

    in_session(body, {"conftest.py": CONFTEST, "eval_it.py": source({"eval_it": mark}, parameters)})


def test_a_mark_that_cannot_be_evaluated_refuses_the_evaluation(in_session: InSession) -> None:
    files = {"eval_it.py": source({"eval_it": "@pytest.mark.skipif('no_such_name', reason='x')"})}
    (stop,) = in_session(stops, files).values()
    assert stop.startswith("eval_it.py::eval_it: Error evaluating 'skipif' condition")
    assert "NameError: name 'no_such_name' is not defined" in stop


@pytest.mark.parametrize(
    ("error", "status", "cause", "reason"),
    [
        (pytest.skip.Exception("no key"), "skipped", EvaluationEnd.SKIPPED, "no key"),
        (pytest.xfail.Exception("not yet"), "skipped", EvaluationEnd.SKIPPED, "xfail: not yet"),
        (DatasetError("no rows", remedy="Add some."), "failed", EvaluationEnd.DATASET_REFUSED, "no rows"),
        (StoreError("disk full"), "failed", EvaluationEnd.ERROR, "disk full"),
        (RuntimeError("boom"), "failed", EvaluationEnd.ERROR, "RuntimeError: boom"),
        (KeyboardInterrupt(), "cancelled", EvaluationEnd.INTERRUPTED, "interrupted"),
        (pytest.exit.Exception("enough"), "cancelled", EvaluationEnd.INTERRUPTED, "pytest.exit: enough"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_how_an_exception_ends_an_evaluation(
    error: BaseException, status: str, cause: EvaluationEnd, reason: str
) -> None:
    assert ending_of(None, error) == Ending(EvaluationStatus(status), cause, reason)


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        ('@pytest.mark.xfail(reason="weak")', "xfail (weak): RuntimeError: boom"),
        ("@pytest.mark.xfail", "xfail: RuntimeError: boom"),
        ('@pytest.mark.xfail(reason="weak", raises=(RuntimeError, OSError))', "xfail (weak): RuntimeError: boom"),
        ('@pytest.mark.xfail(reason="weak", raises=ValueError)', None),
        ('@pytest.mark.xfail(False, reason="weak")', None),
        ("", None),
    ],
)
def test_an_xfail_mark_expects_an_error(in_session: InSession, mark: str, reason: str | None) -> None:
    ending = in_session(
        lambda collected: ending_of(collected.items[0], RuntimeError("boom")),
        {"eval_it.py": source({"eval_it": mark})},
    )
    cause = EvaluationEnd.ERROR if reason is None else EvaluationEnd.EXPECTED_FAILURE
    assert ending == Ending(EvaluationStatus.FAILED, cause, reason or "RuntimeError: boom")
