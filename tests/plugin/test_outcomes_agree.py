"""Skips, expected failures, failures and exits mean the same in plain pytest and after submit."""

from __future__ import annotations

import os
import re

import pytest

from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.store import Store
from tests.plugin.conftest import Evaluate
from tests.support.commands import Commands

CONFTEST = """
import pytest

@pytest.fixture
def row_skips():
    pytest.skip("row fixture skips")

@pytest.fixture(scope="session")
def session_skips():
    pytest.skip("no key here")

@pytest.fixture(scope="session")
def session_breaks():
    raise RuntimeError("no disk")

@pytest.fixture(scope="module")
def module_fails():
    pytest.fail("no module today")

@pytest.fixture
def asks(missing_below): ...

@pytest.fixture
def note(request):
    request.node.noted = True

def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "eval_at_collection":
            item.add_marker(pytest.mark.skip(reason="added at collection"))
"""

HEADER = """
import pytest
from doteval import Score, foreach

ok = Score("ok", True, ["accuracy"])
rows = [(1,), (2,)]

def never():
    with open("opened.log", "a") as log:
        log.write("opened")
    yield from rows

def skips():
    pytest.skip("no data here")

def breaks():
    yield (1,)
    raise KeyError("of the dataset")
"""

# An evaluation by its name: mark, dataset, parameters and body; then its outcome in pytest, and in the store its status
# and the end of its reason.
OUTCOMES = {
    "eval_skip": ("@pytest.mark.skip('not today')", "never", "i", "return ok", "skipped", "skipped", "not today"),
    "eval_skipif": (
        "@pytest.mark.skipif(True, reason='if so')", "never", "i", "return ok", "skipped", "skipped", "if so",
    ),
    "eval_at_collection": ("", "never", "i", "return ok", "skipped", "skipped", "added at collection"),
    "eval_row_fixture": (
        "", "rows", "i, row_skips", "return ok", "skipped", "skipped", "all 2 rows were skipped: row fixture skips",
    ),
    "eval_session_fixture": ("", "rows", "i, session_skips", "return ok", "skipped", "skipped", "no key here"),
    "eval_used_fixture": (
        "@pytest.mark.usefixtures('session_skips')", "rows", "i", "return ok", "skipped", "skipped", "no key here",
    ),
    "eval_row": (
        "", "rows", "i", "pytest.skip('no answer')", "skipped", "skipped", "all 2 rows were skipped: no answer",
    ),
    "eval_one_row": ("", "rows", "i", "return ok if i == 1 else pytest.skip('no')", "passed", "completed", None),
    "eval_importorskip": (
        "", "rows", "i", "pytest.importorskip('no_such_one')", "skipped", "skipped", "No module named 'no_such_one'",
    ),
    "eval_dataset_skips": ("", "skips", "i", "return ok", "skipped", "skipped", "no data here"),
    "eval_dataset_breaks": ("", "breaks", "i", "return ok", "failed", "failed", "raised KeyError after 1 row"),
    "eval_no_file": ("", "'missing.csv'", "i", "return ok", "failed", "failed", "there is no file 'missing.csv'"),
    "eval_empty": ("", "[]", "i", "return ok", "failed", "failed", "the dataset of eval_empty is empty"),
    "eval_breaks": ("", "rows", "i, session_breaks", "return ok", "error", "failed", "RuntimeError: no disk"),
    "eval_fixture_fails": ("", "rows", "i, module_fails", "return ok", "error", "failed", "no module today"),
    "eval_missing": ("", "never", "i, absent", "return ok", "error", "failed", "fixture 'absent' not found"),
    "eval_missing_below": ("", "never", "i, asks", "return ok", "error", "failed", "fixture 'missing_below' not found"),
    "eval_missing_used": (
        "@pytest.mark.usefixtures('gone')", "never", "i", "return ok", "error", "failed", "fixture 'gone' not found",
    ),
    "eval_uses": (
        "@pytest.mark.usefixtures('note')", "rows", "i, request", "assert request.node.noted; return ok",
        "passed", "completed", None,
    ),
    "eval_xpass": ("@pytest.mark.xfail(reason='weak')", "rows", "i", "return ok", "xpassed", "completed", None),
    "eval_xpass_strict": (
        "@pytest.mark.xfail(reason='weak', strict=True)", "rows", "i", "return ok",
        "failed", "failed", "[XPASS(strict)] weak",
    ),
    "eval_not_run": (
        "@pytest.mark.xfail(reason='crashes', run=False)", "never", "i", "return ok",
        "xfailed", "skipped", "xfail: [NOTRUN] crashes",
    ),
    "eval_xfail": (
        "@pytest.mark.xfail(reason='weak', strict=True)", "rows", "i, session_breaks", "return ok",
        "xfailed", "failed", "xfail (weak): RuntimeError: no disk",
    ),
    "eval_xfail_dataset": (
        "@pytest.mark.xfail(reason='weak')", "'missing.csv'", "i", "return ok",
        "xfailed", "failed", "xfail (weak): there is no file 'missing.csv'",
    ),
    "eval_xfail_other": (
        "@pytest.mark.xfail(reason='weak', raises=ValueError)", "rows", "i, session_breaks", "return ok",
        "error", "failed", "RuntimeError: no disk",
    ),
    "eval_rows_fail": ("", "rows", "i", "pytest.fail('no')", "passed", "completed", None),
    "eval_fine": ("", "rows", "i", "return ok", "passed", "completed", None),
}  # fmt: skip
SOURCE = HEADER + "".join(
    f'\n{mark}\n@foreach("i", {dataset})\ndef {name}({parameters}): {body}\n'
    for name, (mark, dataset, parameters, body, *_) in OUTCOMES.items()
)


def ended(folder: pytest.Pytester, experiment: str) -> dict[str, Evaluation]:
    with Store.open(str(folder.path / ".doteval" / "doteval.db"), create=False) as store:
        return {each.name: each for each in store.evaluations.of(store.experiments.find(experiment))}


def outcomes(evaluations: dict[str, Evaluation]) -> dict[str, tuple[str, str | None]]:
    """The status of each evaluation, and its reason as far as it does not depend on where the rows run."""
    return {
        name: (each.status.value, (each.reason or "").rpartition("failed on every worker process: ")[2] or None)
        for name, each in evaluations.items()
    }


def test_outcomes_mean_the_same(pytester: pytest.Pytester, run_pytest: Evaluate, commands: Commands) -> None:
    for name, text in {"conftest.py": CONFTEST, "eval_it.py": SOURCE, "pytest.ini": "[pytest]\n"}.items():
        (pytester.path / name).write_text(text)
    here = run_pytest("eval_it.py", "--experiment", "here", "-v", "-p", "no:cacheprovider")
    words = {word: word.lower() for word in ("PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL", "XPASS")}
    words |= {"XFAIL": "xfailed", "XPASS": "xpassed"}
    shown = dict(re.findall(r"^eval_it\.py::(\w+) ([A-Z]+)", here.stdout.str(), re.MULTILINE))
    assert {name: words[word] for name, word in shown.items()} == {name: each[4] for name, each in OUTCOMES.items()}
    there = commands.run(
        "doteval",
        ["submit", "eval_it.py", "--experiment", "there", "--workers", "1"],
        directory=pytester.path,
        environment={**os.environ, "COLUMNS": "160"},
        timeout=180,
    )
    ours, theirs = ended(pytester, "here"), ended(pytester, "there")
    assert outcomes(ours) == outcomes(theirs)
    for name, (*_, status, reason) in OUTCOMES.items():
        evaluation = theirs[name]
        assert evaluation.status is EvaluationStatus(status), name
        assert (evaluation.reason or "").endswith(reason or ""), (name, evaluation.reason)
        assert bool(evaluation.reason) == bool(reason), name
        assert ours[name].end_cause is evaluation.end_cause or status == "failed", name
        assert ours[name].counts.ran == evaluation.counts.ran, name
    # Whatever stops an evaluation before its rows does so before the dataset is opened.
    assert not (pytester.path / "opened.log").exists()
    # pytest's own section and the final report of submit give the reason.
    for output in (here.stdout.str(), there.stdout):
        for _, _, _, _, _, _, reason in OUTCOMES.values():
            assert reason is None or reason[:40] in output, reason
    # An evaluation as a whole failed, which no mark expects.
    assert (here.ret, there.returncode) == (1, 5), there.stdout + there.stderr
    assert "eval_xfail failed" not in there.stderr
    assert "eval_breaks failed" in there.stderr
