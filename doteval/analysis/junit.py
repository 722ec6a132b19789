"""Writes judged evaluations as JUnit XML, which Jenkins, GitLab, Azure and others read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC
from xml.etree import ElementTree

from doteval.analysis.judgement import JudgedEvaluation, JudgedOutcome, Judgement
from doteval.core.wording import plain

# What no XML document may hold besides control characters, not even as a reference.
_NOT_IN_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
# Where what is about no single evaluation stands.
_GENERAL = "doteval"


def junit_xml(judgement: Judgement) -> bytes:
    """Return the document: for each evaluation a suite with one test case, and its figures as properties.

    The properties belong to the suite, since in test cases the schema of Jenkins does not allow them. What is about no
    single evaluation is a test case of its own.
    """
    root = ElementTree.Element("testsuites", name=_text(judgement.experiment))
    for judged in judgement.evaluations:
        _add_evaluation(root, judged)
    if judgement.unassigned:
        suite = _add_suite(root, _GENERAL, 0.0)
        _add_case(suite, _GENERAL, "thresholds", 0.0, JudgedOutcome.FAILED, judgement.unassigned)
    suites = list(root)
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in suites)))
    root.set("time", f"{sum(each.seconds for each in judgement.evaluations):.3f}")
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _add_evaluation(root: ElementTree.Element, judged: JudgedEvaluation) -> None:
    evaluation = judged.evaluation
    suite = _add_suite(root, evaluation.spec.nodeid, judged.seconds)
    suite.set("timestamp", evaluation.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _figures(judged):
        ElementTree.SubElement(properties, "property", name=_text(name), value=_text(value))
    # As pytest names a test: the module and the class with dots, then the function with its parameters.
    parts = evaluation.name.partition("[")
    *classes, function = parts[0].split("::")
    module = evaluation.spec.path.removesuffix(".py").replace("/", ".")
    classname, name = ".".join([module, *classes]), f"{function}{parts[1]}{parts[2]}"
    case = _add_case(suite, classname, name, judged.seconds, judged.outcome, judged.reasons)
    if notes := [*judged.summary.warnings, *evaluation.dataset_notes, *judged.summary.notes]:
        ElementTree.SubElement(case, "system-out").text = _text("\n".join(notes))


def _figures(judged: JudgedEvaluation) -> Iterator[tuple[str, object]]:
    counts = judged.evaluation.counts
    yield "rows.total", "" if counts.total is None else counts.total
    yield "rows.done", counts.done
    yield "rows.failed", counts.failed
    yield "rows.skipped", counts.skipped
    for score in judged.summary:
        for metric in score.metrics:
            name = f"{score.name}.{metric.name}"
            if metric.value is None or not math.isfinite(metric.value):
                continue
            yield name, metric.value
            yield f"{name}.n", metric.n
            if metric.interval is not None:
                yield f"{name}.low", metric.interval.low
                yield f"{name}.high", metric.interval.high


def _add_suite(root: ElementTree.Element, name: str, seconds: float) -> ElementTree.Element:
    counts = {"tests": "0", "failures": "0", "errors": "0", "skipped": "0"}
    return ElementTree.SubElement(root, "testsuite", {"name": _text(name), **counts, "time": f"{seconds:.3f}"})


def _add_case(
    suite: ElementTree.Element, classname: str, name: str, seconds: float, outcome: JudgedOutcome, reasons: list[str]
) -> ElementTree.Element:
    case = ElementTree.SubElement(
        suite, "testcase", classname=_text(classname), name=_text(name), time=f"{seconds:.3f}"
    )
    suite.set("tests", "1")
    if outcome is JudgedOutcome.FAILED:
        suite.set("failures", "1")
        # Readers show the message in lists and the text on the page of the test case.
        failure = ElementTree.SubElement(case, "failure", message=_text(reasons[0]), type="doteval.failed")
        failure.text = _text("\n".join(reasons))
    elif outcome is JudgedOutcome.SKIPPED:
        suite.set("skipped", "1")
        ElementTree.SubElement(case, "skipped", message=_text("\n".join(reasons)), type="doteval.skipped")
    return case


def _text(value: object) -> str:
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", plain(value))
