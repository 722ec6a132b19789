"""The options of plain pytest: rows, epochs, thresholds, error limits and stores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doteval.store import ExperimentLabels, ExperimentOverview, Store
from tests.plugin.conftest import ALONE, Evaluate, Records

COUNTED = """
@foreach("i", [(i,) for i in range(30)])
def eval_rows(i):
    print(f"<{i}>")
    if i == 3 and not FAILING.exists():
        FAILING.touch()
        raise RuntimeError("the first time")
    return Score("ok", True, ["accuracy"])

from pathlib import Path
FAILING = Path("failed")
"""


def listed_experiments() -> list[ExperimentOverview]:
    with Store.open(".doteval/doteval.db", create=False) as store:
        return store.experiments.overviews()


def rows_of(result: pytest.RunResult) -> list[int]:
    return [int(found) for found in re.findall(r"<(\d+)>", result.stdout.str())]


def test_samples_limit_the_rows_and_a_larger_number_goes_on(evaluate: Evaluate, records: Records) -> None:
    first = evaluate(COUNTED, "--samples", "5", "--tag", "base", "--tag", "paper", "--note", "why not")
    assert rows_of(first) == [0, 1, 2, 3, 4]
    first.stdout.fnmatch_lines(["eval_rows: 1 × RuntimeError: the first time (first in row 3)"])
    assert [record.outcome.status for record in records("eval_rows")] == ["done"] * 3 + ["failed", "done"]

    (listed,) = listed_experiments()
    assert listed.labels == ExperimentLabels(("base", "paper"), "why not")
    assert listed.begun_by is not None
    assert "--samples 5" in listed.begun_by.command_line
    evaluate(None, "--tag", "two words").stderr.fnmatch_lines(["ERROR: 'two words' cannot be a tag*"])

    # The failed row runs again, together with the new ones.
    second = evaluate(None, "--samples", "8")
    assert rows_of(second) == [3, 5, 6, 7]
    second.stdout.fnmatch_lines(["eval_rows: resumed, 4 of 8 rows were done"])
    assert rows_of(evaluate(None, "--samples", "6")) == []
    assert rows_of(evaluate()) == list(range(8, 30))
    assert [record.row.index for record in records("eval_rows")] == list(range(30))
    assert {str(record.outcome.status) for record in records("eval_rows")} == {"done"}


def test_epochs_run_every_row_several_times_and_metrics_are_over_the_samples(
    evaluate: Evaluate, records: Records
) -> None:
    source = """
from collections import Counter
from doteval.metrics import accuracy, pass_at_k
seen = Counter()

@foreach("i", [(i,) for i in range(4)])
def eval_rows(i):
    seen[i] += 1
    # Row 0 is always right, row 1 once in three, row 2 never, row 3 raises once.
    if i == 3 and seen[i] == 2:
        raise RuntimeError("once")
    return Score("right", i in (0, 3) or (i == 1 and seen[i] == 1), [accuracy(), pass_at_k(k=2)])

def test_counts():
    print("seen", sorted(seen.items()))
"""
    result = evaluate(source, "--epochs", "3")
    assert "seen [(0, 3), (1, 3), (2, 3), (3, 3)]" in result.stdout.str()
    stored = records("eval_rows")
    assert [(record.row.index, record.row.sample) for record in stored] == [(i, s) for i in range(4) for s in range(3)]
    # 3 + 1 + 0 + 2 of 12; pass@2 of rows with 3, 1, 0 and 2 right of 3: (1 + 2/3 + 0 + 1) / 4.
    result.stdout.re_match_lines(
        [r"eval_rows +right\.accuracy +0\.500 .* 12 +1 +0", r"eval_rows +right\.pass_at_k\(k=2\) +0\.667 .* 12 +1 +0"]
    )
    # More epochs go on, fewer are refused.
    result = evaluate(None, "--epochs", "5")
    result.stdout.fnmatch_lines(["*resumed, 11 of 20 rows were done"])
    assert "seen [(0, 2), (1, 2), (2, 2), (3, 3)]" in result.stdout.str()
    result = evaluate(None, "--epochs", "2")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*it began with 5 epochs and has now 2*"])


GATED = """
@foreach("i", [(i,) for i in range(10)])
def eval_one(i):
    return Score("right", i < 6, ["accuracy"])

@pytest.mark.parametrize("model", ["small", "large"])
@foreach("i", [(i,) for i in range(10)])
def eval_two(i, model):
    return Result(Score("right", i < (9 if model == "large" else 7), ["accuracy"]), Score("length", i, ["mean"]))

def test_beside():
    pass
"""


def test_a_missed_threshold_fails_the_evaluation_in_the_report_of_pytest(
    evaluate: Evaluate, pytester: pytest.Pytester
) -> None:
    result = evaluate(
        GATED, "--fail-under", "right.accuracy=0.65", "--fail-under=eval_two:length.mean=4.5", "--junitxml=j"
    )
    result.assert_outcomes(passed=3, failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["right.accuracy is 0.600, under 0.65 (n 10, 95% interval 0.313 – 0.832)", "FAILED eval_it.py::eval_one - *"]
    )
    junit = pytester.path.joinpath("j").read_text()
    assert 'tests="4" ' in junit
    assert 'failures="1"' in junit
    assert "right.accuracy is 0.600, under 0.65" in junit

    # With parameters and without, with -x, and with --last-failed.
    result = evaluate(None, "-x", "--fail-under", "eval_two[small]:right.accuracy=0.8", plain=True)
    result.assert_outcomes(passed=1, failed=1)
    result = evaluate(None, "--lf", "--fail-under", "eval_two[small]:right.accuracy=0.8", plain=True)
    result.assert_outcomes(failed=1)
    result = evaluate(None, "--lf", plain=True)
    result.assert_outcomes(passed=1)


def test_an_evaluation_that_is_worse_than_a_baseline_fails(evaluate: Evaluate) -> None:
    source = """
from pathlib import Path

WORSE = Path("worse")

@foreach("i", [(i,) for i in range(20)])
def eval_worse(i):
    return Score("right", i >= (12 if WORSE.exists() else 2), ["accuracy"])

@foreach("i", [(i,) for i in range(20)])
def eval_same(i):
    return Score("right", i > 2, ["accuracy"])
"""
    evaluate(source, "--experiment", "base", plain=True).assert_outcomes(passed=2)
    Path("worse").touch()
    result = evaluate(None, "--experiment", "new", "--fail-if-worse", "base", plain=True)
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["eval_worse right.accuracy is WORSE (0.900 in the baseline, now 0.400, *p 0.002) (--fail-if-worse base)"]
    )
    allowed = evaluate(None, "--experiment", "new", "--fail-if-worse", "base", "--max-drop", "0.9", plain=True)
    allowed.assert_outcomes(passed=2)
    # Before a row runs.
    result = evaluate(None, "--experiment", "third", "--fail-if-worse", "bsae", plain=True)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*there is no experiment named 'bsae' in *"])
    assert "third" not in [each.experiment.name for each in listed_experiments() if each.counts.finished]
    for options in (["--max-drop", "0.1"], ["--fail-if-worse", "base", "--max-drop", "nan"]):
        assert evaluate(None, *options, plain=True).ret == 4


def test_a_threshold_that_applies_to_no_evaluation_counts_as_missed(evaluate: Evaluate) -> None:
    result = evaluate(GATED, "--fail-under", "rihgt.accuracy=0.1")
    result.assert_outcomes(passed=4)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["--fail-under rihgt.accuracy=0.1: no evaluation has this score"])
    result = evaluate(None, "--fail-under", "right.mean=0.1", "-k", "eval_one")
    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines(["there is no right.mean (--fail-under right.mean=0.1): there is right.accuracy"])
    result = evaluate('@foreach("i", [(1,)])\ndef eval_broken(i):\n    1 / 0', "--fail-under", "right.accuracy=0.1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["there is no right.accuracy, since no row is done *"])


def test_too_many_errors_stop_the_evaluation(evaluate: Evaluate, records: Records) -> None:
    source = """
import os

@foreach("i", [(i,) for i in range(100)])
def eval_sync(i):
    if i % 2 and "MENDED" not in os.environ:
        raise RuntimeError("odd")
    return Score("ok", True, ["accuracy"])

@foreach("i", [(i,) for i in range(100)])
async def eval_async(i):
    await asyncio.sleep(0)
    if i % 2 and "MENDED" not in os.environ:
        raise RuntimeError("odd")
    return Score("ok", True, ["accuracy"])
"""
    result = evaluate(source, "--max-errors", "3")
    result.assert_outcomes(failed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["4 rows have failed, more than the 3 of --max-errors, and the evaluation was stopped"])
    assert len(records("eval_sync")) == 8
    assert 8 <= len(records("eval_async")) <= 40
    result.stdout.fnmatch_lines(["eval_sync: * rows are left: more than 3 rows have failed"])
    evaluate(None, "--max-errors", "50").assert_outcomes(passed=2)
    assert len(records("eval_async")) == 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--samples", "0"], "--samples takes a whole number of at least 1, not '0'"),
        (["--epochs", "x"], "--epochs takes a whole number of at least 1, not 'x'"),
        (["--concurrent=lots"], "--concurrent takes a number of rows of at least 1, or auto, not 'lots'"),
        (["--max-retries", "-1"], "--max-retries takes a whole number of at least 0, not '-1'"),
        (["--retry-delay", "-1"], "--retry-delay takes a number of seconds, not '-1'"),
        (["--row-timeout", "0"], "--row-timeout takes a number of seconds above 0, not '0'"),
        (["--max-errors", "-1"], "--max-errors takes a whole number of at least 0, not '-1'"),
        (["--fail-under", "accuracy"], "--fail-under 'accuracy' is not [[]EVALUATION:]SCORE.METRIC=VALUE"),
        (["--fail-under", "ok.accuracy=high"], "--fail-under 'ok.accuracy=high' is not*"),
        (["--fail-under", "ok.pass_at_k(k=2)"], "--fail-under 'ok.pass_at_k(k=2)' is not*"),
    ],
)
def test_bad_values_are_usage_errors(
    pytester: pytest.Pytester, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Runs in this process: pytest stops at the command line and collects nothing.
    assert pytest.main([*arguments, *ALONE, str(pytester.path)]) == pytest.ExitCode.USAGE_ERROR
    pytest.LineMatcher(capsys.readouterr().err.splitlines()).fnmatch_lines([f"*{said}*"])


def test_an_evaluation_may_have_its_own_store(evaluate: Evaluate, pytester: pytest.Pytester) -> None:
    result = evaluate(
        """
@foreach("i", [(1,)], storage="sqlite://own/results.db")
def eval_own(i):
    return Score("ok", True, ["accuracy"])

@foreach("i", [(1,)])
def eval_other(i):
    return Score("ok", True, ["accuracy"])
""",
        "--storage",
        "given.db",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["results: sqlite:*own/results.db", "results: sqlite:*given.db"])
    assert pytester.path.joinpath("own", "results.db").is_file()
    assert not pytester.path.joinpath(".doteval").exists()


def test_errors_name_their_section_of_the_documentation(evaluate: Evaluate, pytester: pytest.Pytester) -> None:
    column = evaluate('@foreach("a,b", [(1, 2)])\ndef eval_x(a, c):\n    return Score("ok", True, ["accuracy"])\n')
    column.stdout.fnmatch_lines(["*has no parameter for the column 'b'", "doteval docs troubleshooting#missing-column"])
    empty = evaluate('@foreach("a", [])\ndef eval_x(a):\n    return Score("ok", True, ["accuracy"])\n')
    empty.stdout.fnmatch_lines(
        ["the dataset of eval_x is empty", "More: doteval docs troubleshooting#dataset-not-read"]
    )
    away = evaluate(COUNTED, "--storage", "postgresql://nobody@127.0.0.1:1/nothing")
    away.stdout.fnmatch_lines(["*cannot be reached*", "More: doteval docs troubleshooting#store-unreachable"])
    # What the user has to mend is none of doteval's frames.
    assert "Traceback" not in away.stdout.str()
    (pytester.path / "pyproject.toml").write_text("[tool.doteval]\nnonsense = 1\n")
    setting = evaluate(COUNTED)
    setting.stderr.fnmatch_lines(["*unknown key 'nonsense'*", "More: doteval docs troubleshooting#unknown-setting"])
