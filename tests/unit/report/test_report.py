"""Reports as HTML and Markdown: what they say, that nothing of a row is markup, and that they stay small."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from doteval.analysis.compare import Verdict
from doteval.core.experiments import EvaluationStatus
from doteval.core.provenance import GitState, Provenance
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus, Score
from doteval.report import page as pages
from doteval.report import reading
from doteval.report.contents import HeldThresholds, Level, ReportContents
from doteval.report.markdown import markdown_page
from doteval.report.page import MOST_BYTES, html_page
from doteval.report.reading import read_report
from doteval.store import NewResult, Store
from tests.support.comparisons import FAILED, PENDING, add_experiment
from tests.support.store_workload import begin, done

VOID = {"meta", "link", "br", "img", "hr", "input", "rect", "path"}
NASTY = '<script>alert(1)</script>\x00\ud800 \u202eright to left\u202c אבג & "quoted" \']]> {{ 7*7 }} $x$'


class PageReader(HTMLParser):
    """Reads a page, and what a browser would have to mend or ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> PageReader:
    """Read a page, and check what holds for each."""
    assert len(page.encode()) < MOST_BYTES
    reader = PageReader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    names = [tag for tag, _ in reader.tags]
    assert not {"script", "iframe", "object", "img"} & set(names)
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src", "action"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:,"))
    identities = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    # No heading leaves out a level.
    assert reader.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(reader.headings, reader.headings[1:], strict=False))
    assert names.count("table") == names.count("caption")
    assert all(attributes.get("aria-label") for tag, attributes in reader.tags if tag == "svg")
    return reader


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "results.db")) as opened:
        yield opened


def contents_of(store: Store, name: str, against: str | None = None) -> ReportContents:
    experiment = store.experiments.find(name)
    return read_report(store, experiment, store.evaluations.of(experiment), against=against)


def test_the_first_screen_answers(store: Store) -> None:
    right = {"exact_match": [True] * 90 + [False] * 10, "judge": [4.0, 3.5] * 50}
    wrong = {"exact_match": [True] * 48 + [FAILED] * 2 + [False] * 50, "judge": [4.0, 3.5] * 50}
    metrics = {"exact_match": ["accuracy"], "judge": ["mean"]}
    add_experiment(store, "base", right, metrics=metrics)
    new = add_experiment(store, "new", wrong, metrics=metrics, code="2", model="gpt-large")
    origin = Provenance(
        ("doteval", "submit", "--storage", "postgresql://me:***@db/x"), GitState("ab" * 20, "main", True)
    )
    store.provenance.add(new.experiment, origin)
    store.labels.change(new.experiment, add=["release"], note="the large model")
    contents = contents_of(store, "new", "base")
    assert contents.against is not None
    assert contents.against.verdict is Verdict.WORSE
    text = " ".join(" ".join(read(html_page(contents)).text).split())
    for expected in (
        *("Is it good?", "0.480", "95% interval (Wilson), n 100", "Is it better than base", "Worse", "0.900 → 0.480"),
        *("Can it be trusted?", "2 rows of 100 failed (2.0%)", "the code differs", "gpt-small | gpt-large"),
        *("with uncommitted changes", "release", "the large model", "abababab", "postgresql://me:***@db/x"),
        *("Rows that changed: exact_match accuracy", "base says key", "new says key", "ValueError (2)"),
        *("Rows with the worst exact_match", "Time of a row", "Tokens of a row", "gpt-large", "no worker process"),
    ):
        assert expected in text
    assert "Not complete" not in text
    markdown = markdown_page(contents)
    for expected in ("**WORSE**", "| 0.480 |", "the code differs", "<code>gpt-large</code>", "ab" * 20):
        assert expected in markdown


def test_nothing_of_a_row_is_markup(store: Store) -> None:
    evaluation = begin(store, name=NASTY.replace("\x00", "").replace("\ud800", ""))
    scores = (Score("sc<b>ore $x$", False, ("accuracy",)), Score(NASTY, NASTY, ()))
    huge = "x" * 5_000_000
    rows = [Row(0, "a", {"text": NASTY}), Row(1, "b", {"text": huge}), Row(2, "c", {NASTY: [NASTY]})]
    answers = [
        Outcome(RowStatus.DONE, 1e9, 1.0, scores, prompt=[{"role": NASTY, "content": NASTY}], model_response=NASTY),
        Outcome(RowStatus.DONE, 1e9, 1.0, scores, prompt=huge, model_response=huge),
        Outcome(
            RowStatus.FAILED,
            1e9,
            1.0,
            error=RowError("E<i>", f"{NASTY} https://me:hunter2@host/?api_key=hunter3", ErrorClass.EVALUATION),
        ),
    ]
    store.rows.add(evaluation.id, rows)
    store.rows.set_total(evaluation.id, 3, complete=True, fingerprint="f")
    store.results.write([NewResult(evaluation.id, *each) for each in zip(rows, answers, strict=True)], None)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.COMPLETED)
    contents = contents_of(store, evaluation.experiment.name)
    for text in (html_page(contents), markdown_page(contents)):
        text.encode()
        assert "<script" not in text
        assert not re.search("[\x00-\x08\u202a-\u202e]", text)
        assert "hunter" not in text
        assert "me:" in text
        assert len(text) < 300_000
    page = html_page(contents)
    read(page)
    assert "&lt;script&gt;" in page
    assert "{{ 7*7 }}" in page
    assert "(5,000,000 characters)" in page


def test_a_running_experiment_never_looks_complete(store: Store) -> None:
    values = {"exact_match": [True] * 5 + [PENDING] * 5}
    add_experiment(store, "running", values, status=EvaluationStatus.RUNNING)
    contents = contents_of(store, "running")
    page = html_page(contents)
    text = " ".join(read(page).text)
    assert text.index("Not complete") < text.index("How good is it so far?")
    assert "still running. 5/10 rows are finished." in text
    assert Level.BAD in {check.level for check in contents.checks}
    assert markdown_page(contents).startswith("# Evaluation report, not complete")


def test_an_experiment_that_nobody_finished_is_not_complete(store: Store) -> None:
    add_experiment(store, "left", {"exact_match": [True] * 5 + [PENDING] * 5}, status=EvaluationStatus.CANCELLED)
    text = " ".join(read(html_page(contents_of(store, "left"))).text)
    assert "eval_qa is cancelled" in text
    assert "5 rows have no result" in text


def test_an_experiment_without_evaluations_or_scores(store: Store) -> None:
    store.experiments.begin("empty")
    contents = contents_of(store, "empty")
    assert "no evaluations yet" in html_page(contents)
    read(html_page(contents))
    assert "no evaluations yet" in markdown_page(contents)
    evaluation = begin(store, 3, name="scoreless")
    outcome = Outcome(RowStatus.DONE, 1e9, 0.0)
    store.results.write([NewResult(evaluation.id, row, outcome) for row in (Row(0, "a0", {}), Row(1, "a1", {}))], None)
    contents = contents_of(store, "scoreless")
    assert "There are no scores" in " ".join(read(html_page(contents)).text)
    assert "no scores" in markdown_page(contents)


def test_lower_scores_that_all_rows_share_are_the_worst(store: Store) -> None:
    add_experiment(store, "wrong", {"exact_match": [False] * 3})
    add_experiment(store, "right", {"exact_match": [True] * 3})
    add_experiment(store, "graded", {"judge": [3.0, 1.0, 2.0, 5.0, 4.0, 5.0]}, metrics={"judge": ["mean"]})
    shown = {
        name: [row.index for row in contents_of(store, name).details[0].worst] for name in ("wrong", "right", "graded")
    }
    assert shown == {"wrong": [0, 1, 2], "right": [], "graded": [1, 2, 0, 4]}


def test_large_reports_show_less(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations that are worse come first; the rest is counted."""
    monkeypatch.setattr(reading, "_DETAILED", 2)
    experiment = store.experiments.begin("many")
    for number in range(203):
        values = {"exact_match": [FAILED if number == 200 else True, True]}
        add_experiment(store, experiment.name, values, name=f"eval_{number}")
    contents = contents_of(store, "many")
    assert contents.details[0].shown.evaluation.name == "eval_200"
    page = html_page(contents)
    text = " ".join(" ".join(read(page).text).split())
    assert "203 evaluations" in text
    assert "3 more evaluations are in doteval show" in text
    assert len(markdown_page(contents)) < 65_536
    # What does not fit is shown in less detail, whatever the size is.
    monkeypatch.setattr(pages, "MOST_BYTES", len(page.encode()) - 1)
    assert len(html_page(contents).encode()) < len(page.encode())


def test_thresholds_are_shown(store: Store) -> None:
    add_experiment(store, "new", {"exact_match": [True] * 3})
    experiment = store.experiments.find("new")
    evaluations = store.evaluations.of(experiment)
    for missed, level in (((), Level.GOOD), (("it is 0.5, under 0.9",), Level.BAD)):
        held = HeldThresholds(("--fail-under exact_match.accuracy=0.9",), missed)
        contents = read_report(store, experiment, evaluations, thresholds=held)
        assert contents.checks[0 if missed else -1].level is level or not missed
        text = " ".join(read(html_page(contents)).text)
        assert "--fail-under exact_match.accuracy=0.9" in text
        assert ("it is 0.5, under 0.9" if missed else "All are met") in text


def test_two_evaluations_of_one_experiment_are_compared(store: Store) -> None:
    add_experiment(store, "one", {"exact_match": [True] * 20}, name="eval_x[a]")
    add_experiment(store, "one", {"exact_match": [False] * 20}, name="eval_x[b]")
    experiment = store.experiments.find("one")
    contents = read_report(store, experiment, store.evaluations.of(experiment, "[b]"), against="one::eval_x[a]")
    assert contents.against is not None
    assert contents.against.names == ("eval_x[a]", "eval_x[b]")
    assert contents.against.verdict is Verdict.WORSE
    read(html_page(contents))


def test_the_step_of_the_history_is_marked(store: Store) -> None:
    from doteval.analysis.summary import summarize_evaluation

    for name, right in (("first", 95), ("second", 93), ("third", 50)):
        evaluation = begin(store, name=name)
        rows = [Row(index, f"k{index}", {"text": "t"}) for index in range(100)]
        store.rows.add(evaluation.id, rows)
        store.rows.set_total(evaluation.id, 100, complete=True, fingerprint="f", rows_hash="r")
        store.results.write([NewResult(evaluation.id, row, done(row.index < right)) for row in rows], None)
        store.evaluations.set_status(evaluation.id, EvaluationStatus.COMPLETED)
        ended = store.evaluations.by_uid(evaluation.uid)
        store.summaries.write(ended, [summarize_evaluation(ended, store.results.score_columns(ended.id))])
    contents = contents_of(store, "third")
    page = html_page(contents)
    assert "accuracy fell by 0.430" in page
    label = next(
        attributes["aria-label"]
        for tag, attributes in read(page).tags
        if tag == "svg" and "History" in str(attributes["aria-label"])
    )
    assert label is not None
    assert "over 3 experiments, the last 0.500" in label
    assert "at third" in label
    assert "accuracy fell by 0.430" in markdown_page(contents)
    # Later experiments are no part of a report on an earlier one.
    assert "History of" not in html_page(contents_of(store, "first"))


def test_charts_are_parts_of_the_page(store: Store) -> None:
    add_experiment(store, "new", {"exact_match": [True, False] * 3, "judge": [0.1 * n for n in range(6)]})
    page = html_page(contents_of(store, "new"))
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) >= 5
    for chart in charts:
        ElementTree.fromstring(chart)
        # Fonts and colours are those of the page, in light and in dark.
        assert "var(--" in chart
        assert "font-family" not in chart
        assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'aria-label="[^"]*"', "", chart))
