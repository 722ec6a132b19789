"""The section of evaluations in pytest's output."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest

from doteval.analysis.summary import ScoreColumn, summarize
from doteval.core.experiments import Counts, Evaluation, EvaluationSpec, EvaluationStatus, Experiment
from doteval.core.results import ErrorClass
from doteval.local.evaluation import LocalReport
from doteval.local.report import write_report
from doteval.local.session import StoredReport
from doteval.store import ErrorCount

HOSTILE = "\x1b[31m\u202e\x9b"
MOMENT = datetime.now(UTC)


def report(counts: Counts, name: str = "eval_x", status: EvaluationStatus = EvaluationStatus.COMPLETED) -> LocalReport:
    experiment = Experiment(1, f"first{HOSTILE}", MOMENT)
    spec = EvaluationSpec("eval_x.py", name, ("i",))
    reason = None if status is EvaluationStatus.COMPLETED else f"reason{HOSTILE}"
    evaluation = Evaluation(1, "uid", experiment, spec, status, reason, counts, MOMENT)
    values = [index > 2 for index in range(counts.done)]
    summary = summarize([ScoreColumn(f"exact_match{HOSTILE}", ("accuracy",), values)], counts)
    errors = (ErrorCount("ValueError", f"no such word {HOSTILE}\nand more", ErrorClass.EVALUATION, counts.failed, 0),)
    return LocalReport(evaluation, summary, errors if counts.failed else (), 0, 0.5)


def section(pytestconfig: pytest.Config, *reports: LocalReport) -> list[str]:
    written = io.StringIO()
    terminal = pytest.TerminalReporter(pytestconfig, written)
    write_report(terminal, [StoredReport(each, "sqlite:///results.db", "") for each in reports], [])
    return written.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_terminal_stacks_the_figures(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = section(pytestconfig, report(Counts(31, done=23, failed=8), "eval_words[gpt-small]"))
    assert lines[1:10] == [
        "evaluation      eval_words[gpt-small]",
        "metric          exact_match\ufffd[31m\ufffd\ufffd.accuracy",
        "value           0.645",
        "95% interval    0.469 – 0.789",
        "n               31",
        "errors          8",
        "skipped         0",
        "time            0.50 s",
        "without errors  0.870",
    ]


def test_a_wide_one_has_a_table(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = section(pytestconfig, report(Counts(23, done=23)), report(Counts(4, done=4)))
    assert lines[1].split() == ["evaluation", "metric", "value", "95%", "interval", "n", "errors", "skipped", "time"]
    assert lines[2].split()[2] == "0.870"
    assert lines[3].split()[2] == "0.250"


def test_nothing_obeys_control_characters(pytestconfig: pytest.Config) -> None:
    lines = section(pytestconfig, report(Counts(4, done=2, failed=1), f"eval_{HOSTILE}", EvaluationStatus.CANCELLED))
    text = "\n".join(lines)
    assert not set(HOSTILE[:1] + HOSTILE[-2:]) & set(text)
    assert "experiment first\ufffd[31m\ufffd\ufffd" in lines[0]
    assert "eval_\ufffd[31m\ufffd\ufffd: 1 row is left: reason\ufffd[31m\ufffd\ufffd" in lines
    assert "eval_\ufffd[31m\ufffd\ufffd: 1 × ValueError: no such word \ufffd[31m\ufffd\ufffd (first in row 0)" in lines
