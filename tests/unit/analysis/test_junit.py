"""JUnit XML: what CI systems read, whatever evaluations, scores and reasons are called."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from doteval.analysis.judgement import JudgedEvaluation, Judgement
from doteval.analysis.junit import junit_xml
from doteval.analysis.thresholds import MissedThreshold
from doteval.core.experiments import EvaluationStatus
from doteval.core.states import EvaluationEnd
from tests.support.judgements import judged

# The elements and attributes that the schema of Jenkins's xUnit plugin allows, as far as they are used here.
ALLOWED = {
    "testsuites": ({"testsuite"}, {"name", "tests", "failures", "errors", "time"}),
    "testsuite": (
        {"properties", "testcase"},
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
    ),
    "properties": ({"property"}, set()),
    "property": (set(), {"name", "value"}),
    "testcase": ({"failure", "skipped", "system-out"}, {"classname", "name", "time"}),
    "failure": (set(), {"message", "type"}),
    "skipped": (set(), {"message", "type"}),
    "system-out": (set(), set()),
}


def document(*evaluations: JudgedEvaluation, **more: object) -> ElementTree.Element:
    content = junit_xml(Judgement("nightly", evaluations, **more))  # type: ignore[arg-type]
    root = ElementTree.fromstring(content)
    for element in root.iter():
        children, attributes = ALLOWED[element.tag]
        assert {child.tag for child in element} <= children
        assert set(element.keys()) <= attributes
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases)
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
    assert int(root.attrib["tests"]) == len(root.findall("testsuite/testcase"))
    assert int(root.attrib["failures"]) == len(root.findall("testsuite/testcase/failure"))
    return root


def test_an_evaluation_is_a_test_case_with_its_figures() -> None:
    root = document(judged("EvalA::eval_qa[gpt/4.1::x]"))
    (case,) = root.iter("testcase")
    assert case.attrib == {"classname": "evals.eval_qa.EvalA", "name": "eval_qa[gpt/4.1::x]", "time": "2.500"}
    assert case.find("failure") is None
    assert root[0].attrib["timestamp"] == "2026-01-02T03:04:05"
    assert {each.attrib["name"]: each.attrib["value"] for each in root.iter("property")} == {
        "rows.total": "40",
        "rows.done": "30",
        "rows.failed": "8",
        "rows.skipped": "2",
        "right.accuracy": "0.75",
        "right.accuracy.n": "38",
        "right.accuracy.low": "0.5",
        "right.accuracy.high": "0.875",
    }
    assert "8 of 38 rows failed" in str(case.findtext("system-out"))


@pytest.mark.parametrize(
    ("status", "cause", "missed", "tag", "message"),
    [
        ("completed", None, [], None, None),
        ("completed", None, ["too low", "worse"], "failure", "too low"),
        ("failed", EvaluationEnd.ERROR, [], "failure", "evals/eval_qa.py::eval_qa is failed: no disk"),
        ("cancelled", EvaluationEnd.BUDGET_USED_UP, [], "failure", "evals/eval_qa.py::eval_qa is cancelled: no disk"),
        ("running", None, [], "failure", "evals/eval_qa.py::eval_qa has not ended: no disk"),
        ("skipped", EvaluationEnd.SKIPPED, [], "skipped", "evals/eval_qa.py::eval_qa is skipped: no disk"),
        ("failed", EvaluationEnd.EXPECTED_FAILURE, [], "skipped", "evals/eval_qa.py::eval_qa is failed: no disk"),
        # The command fails, so that a reader of the file must see why.
        ("skipped", EvaluationEnd.SKIPPED, ["misses"], "failure", "evals/eval_qa.py::eval_qa is skipped: no disk"),
    ],
)
def test_how_an_evaluation_counts(
    status: str, cause: EvaluationEnd | None, missed: list[str], tag: str | None, message: str | None
) -> None:
    found = judged("eval_qa", *missed, status=EvaluationStatus(status), cause=cause, reason="no disk")
    (case,) = document(found).iter("testcase")
    outcomes = [child for child in case if child.tag in ("failure", "skipped")]
    assert [child.tag for child in outcomes] == ([] if tag is None else [tag])
    assert [child.attrib["message"] for child in outcomes] == ([] if message is None else [message])
    texts = ["\n".join(dict.fromkeys([str(message), *missed]))] if tag == "failure" else []
    assert [child.text for child in case.iter("failure")] == texts


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("\"]]><&' \N{SNOWMAN}", "\"]]><&' \N{SNOWMAN}"),
        ("red \x1b[31m\x00\x08", "red \N{REPLACEMENT CHARACTER}[31m" + 2 * "\N{REPLACEMENT CHARACTER}"),
        ("half \ud800, none \uffff, back \u202e", "half \ufffd, none \ufffd, back \ufffd"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_names_that_would_break_the_document(given: str, written: str) -> None:
    (suite,) = document(judged(given, given, path=f"{given}.py", score=given))
    (case,) = suite.iter("testcase")
    assert case.attrib["name"] == written
    assert case.attrib["classname"].endswith(written)
    (failure,) = suite.iter("failure")
    assert failure.attrib["message"] == failure.text == written
    assert f"{written}.accuracy" in [each.attrib["name"] for each in suite.iter("property")]


def test_a_metric_without_a_value_is_left_out() -> None:
    names = [each.attrib["name"] for each in document(judged(value=None)).iter("property")]
    assert names == ["rows.total", "rows.done", "rows.failed", "rows.skipped"]
    names = [each.attrib["name"] for each in document(judged(value=float("nan"))).iter("property")]
    assert names == ["rows.total", "rows.done", "rows.failed", "rows.skipped"]


def test_what_is_about_no_single_evaluation_is_a_test_case_too() -> None:
    missed = (MissedThreshold("no evaluation has this score"), MissedThreshold("too low", "evals/eval_qa.py::eval_qa"))
    root = document(judged("eval_qa", "too low"), missed=missed, unrecorded=("eval_y: no column",))
    assert root.attrib["tests"] == root.attrib["failures"] == "2"
    assert root[1].findtext("testcase/failure") == "no evaluation has this score\neval_y: no column"
    assert document(missed=(MissedThreshold("there are no evaluations"),)).attrib["failures"] == "1"
