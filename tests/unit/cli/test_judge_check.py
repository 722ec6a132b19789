"""`doteval judge-check`: the labels of people beside what a judge said."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from doteval.core.results import Outcome, Row, RowStatus, Score
from doteval.core.row_labels import LabelJudgement
from doteval.metrics.agreement import cohens_kappa
from doteval.store import NewResult, Store
from doteval.store.row_labels import RowLabelWriter
from tests.support.cli import CommandLine, line_with, words
from tests.support.store_workload import begin, failed, sample

pytestmark = pytest.mark.usefixtures("without_settings")

JUDGED = [True, True, False, True, False, False, True, True]
LABELS = ["yes", "no", "No", "TRUE", "false", "1", "y", "yes"]


def judged(row: Row, *values: object) -> Outcome:
    scores = tuple(Score(name, value) for name, value in zip(("judge", "other"), values, strict=False))
    return Outcome(RowStatus.DONE, 1_000_000.0, 0.25, scores)


def fill(url: str, values: list[object], *, epochs: int = 1, name: str = "x") -> None:
    """Rows "k0", "k1", ... with the judge's values, and a last row that failed."""
    with Store.open(url) as store:
        evaluation = begin(store, name=name, epochs=epochs)
        rows = [Row(index, f"k{index}", {"text": f"q {index}", "expected": index}) for index in range(len(values) + 1)]
        store.rows.add(evaluation.id, rows)
        results = [
            NewResult(evaluation.id, sample(row, each), judged(row, value))
            for row, value in zip(rows, values, strict=False)
            for each in range(epochs)
        ]
        store.results.write([*results, NewResult(evaluation.id, rows[-1], failed())], None)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = str(tmp_path / "r.db")
    fill(url, list(JUDGED))
    return url


def labels(tmp_path: Path, *lines: str, head: str = "key,label") -> str:
    file = tmp_path / "labels.csv"
    file.write_text("\n".join([head, *lines]) + "\n")
    return str(file)


def test_a_judge_is_compared_with_people(doteval_: CommandLine, url: str, tmp_path: Path) -> None:
    lines = [f"k{place},{label}" for place, label in enumerate(LABELS)]
    file = labels(tmp_path, *lines, "k8,yes", "nobody,no", "k1,")
    found = json.loads(doteval_("judge-check", "x", file, "--storage", url, "--json").out)
    truth = [True, False, False, True, False, True, True, True]
    assert (found["score"], found["rows"], found["labels"], found["agreed"]) == ("judge", 8, 8, 6)
    assert found["agreement"]["statistic"] == "kappa"
    assert found["agreement"]["value"] == pytest.approx(cohens_kappa(list(zip(JUDGED, truth, strict=True))))
    low, high = found["agreement"]["interval"]
    assert low < found["agreement"]["value"] < high
    assert {(each["label"], each["judged"]): each["count"] for each in found["matrix"]} == {
        (False, False): 2,
        (False, True): 1,
        (True, False): 1,
        (True, True): 4,
    }
    assert (found["labels_without_row"], found["labels_without_score"], found["people"]) == (1, 1, None)
    ran = doteval_("judge-check", "x", file, "--storage", url)
    assert words(line_with(ran.out, "labels agreed with"))[3] == "0.750"
    assert words(line_with(ran.out, "people \\ judge"))[3:] == ["false", "true"]
    assert words(line_with(ran.out, "true  "))[-2:] == ["1", "4"]
    assert "1 label left out: no row has that key" in ran.out
    assert "1 label left out: the row has no score 'judge'" in ran.out


def test_several_people_and_a_column_of_the_dataset(doteval_: CommandLine, url: str, tmp_path: Path) -> None:
    lines = [f'"q {place}",{label}' for place, label in enumerate(LABELS)]
    file = labels(tmp_path, *lines, '"q 0",no', '"q 2",no', head="text,said")
    options = ("--key", "text", "--label", "said", "--storage", url)
    found = json.loads(doteval_("judge-check", "x", file, *options, "--json").out)
    assert (found["rows"], found["labels"]) == (8, 10)
    assert (found["agreement"]["statistic"], found["people"]["statistic"]) == ("alpha", "alpha")
    assert "people alone" in doteval_("judge-check", "x", file, *options).out
    refused = doteval_("judge-check", "x", file, *options, "--statistic", "kappa")
    assert refused.code == 2
    assert "several labels" in refused.err


def test_numbers_and_words(doteval_: CommandLine, tmp_path: Path) -> None:
    url = str(tmp_path / "r.db")
    fill(url, [0, 0.5, 1, 0.5], name="grades")
    fill(url, ["good", "bad", "good"], name="words")
    fill(url, [number / 100 for number in range(30)], name="amounts")
    grades = labels(tmp_path, "k0,0", "k1,1", "k2,yes", "k3,0.5")
    found = json.loads(doteval_("judge-check", "grades", grades, "--storage", url, "--json").out)
    assert (found["agreed"], found["agreement"]["statistic"]) == (3, "kappa")
    weighted = doteval_("judge-check", "grades", grades, "--storage", url, "--statistic", "quadratic-kappa", "--json")
    assert json.loads(weighted.out)["agreement"]["value"] > found["agreement"]["value"]
    spoken = labels(tmp_path, "k0,good", "k1,good", "k2,bad")
    assert json.loads(doteval_("judge-check", "words", spoken, "--storage", url, "--json").out)["agreed"] == 1
    amounts = labels(tmp_path, *(f"k{number},{number / 100}" for number in range(30)))
    found = json.loads(doteval_("judge-check", "amounts", amounts, "--storage", url, "--json").out)
    assert (found["agreement"]["statistic"], found["agreement"]["value"]) == ("interval alpha", 1.0)
    assert found["matrix"] is None


@pytest.mark.parametrize(
    ("lines", "head", "options", "said"),
    [
        (["k0,maybe"], "key,label", (), "the label 'maybe' of row 'k0' is neither"),
        (["nobody,yes"], "key,label", (), "the first label is of 'nobody'"),
        (["k0,yes"], "id,label", (), "no column 'key'"),
        (["k0,"], "key,label", (), "no labels in the column 'label'"),
        (["k0,yes"], "key,label", ("--score", "jugde"), "no row has the score 'jugde'"),
        (["k0,yes"], "key,label", ("--evaluation", "nothing"), "nothing"),
        (["q,yes"], "question,label", ("--key", "question"), "has no column 'question'"),
        (["k0,1.5"], "key,label", ("--statistic", "interval-alpha"), "is neither"),
    ],
)
def test_labels_that_do_not_fit(
    doteval_: CommandLine, url: str, tmp_path: Path, lines: list[str], head: str, options: tuple[str, ...], said: str
) -> None:
    ran = doteval_("judge-check", "x", labels(tmp_path, *lines, head=head), "--storage", url, *options)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_file_or_an_experiment_that_does_not_exist(doteval_: CommandLine, url: str, tmp_path: Path) -> None:
    missing = doteval_("judge-check", "x", "none.csv", "--storage", url)
    assert "there is no file 'none.csv'" in missing.err
    assert "Paths are relative to the current directory" in missing.err
    assert "'y'" in doteval_("judge-check", "y", labels(tmp_path, "k0,yes"), "--storage", url).err


def test_samples_need_to_be_named(doteval_: CommandLine, tmp_path: Path) -> None:
    url = str(tmp_path / "r.db")
    fill(url, [True, False], epochs=2)
    ran = doteval_("judge-check", "x", labels(tmp_path, "k0,yes", "k1,no"), "--storage", url)
    assert "Add a column named sample" in ran.err
    file = labels(tmp_path, "k0,0,yes", "k0,1,yes", "k1,1,yes", head="key,sample,label")
    found = json.loads(doteval_("judge-check", "x", file, "--storage", url, "--json").out)
    assert (found["rows"], found["agreed"]) == (3, 2)


def test_all_the_same(doteval_: CommandLine, tmp_path: Path) -> None:
    url = str(tmp_path / "r.db")
    fill(url, [True, True])
    ran = doteval_("judge-check", "x", labels(tmp_path, "k0,yes", "k1,yes"), "--storage", url)
    assert "agreement beyond chance is not defined" in ran.out


def test_labels_of_one_kind_say_nothing_of_agreement(doteval_: CommandLine, url: str, tmp_path: Path) -> None:
    ran = doteval_("judge-check", "x", labels(tmp_path, "k0,yes", "k2,yes"), "--storage", url)
    assert "All labels are true, so agreement beyond chance says nothing" in ran.out
    assert "All labels" not in doteval_("judge-check", "x", labels(tmp_path, "k0,yes", "k2,no"), "--storage", url).out


def test_labels_as_people_and_spreadsheets_write_them(doteval_: CommandLine, tmp_path: Path) -> None:
    url = str(tmp_path / "r.db")
    fill(url, ["good", "bad", "good", "Gut", "gut"])
    # Blanks are no label, words have the judge's case, and semicolons separate cells where the comma is a decimal sign.
    spoken = labels(tmp_path, "k0;GOOD", "k1; Bad ", "k2;  ", "k3;Gut", "k4;gut", head="\ufeffkey;label")
    found = json.loads(doteval_("judge-check", "x", spoken, "--storage", url, "--json").out)
    assert (found["labels"], found["agreed"]) == (4, 4)
    # A word that the judge never says is one category, whatever its case.
    spoken = labels(tmp_path, "k0,Fair", "k1,fair", "k2,FAIR")
    found = json.loads(doteval_("judge-check", "x", spoken, "--storage", url, "--json").out)
    assert {each["label"] for each in found["matrix"]} == {"Fair", "good", "bad"}
    truths = str(tmp_path / "t.db")
    fill(truths, [True, False])
    numbers = labels(tmp_path, "k0,1.0", "k1,0.0")
    assert json.loads(doteval_("judge-check", "x", numbers, "--storage", truths, "--json").out)["agreed"] == 2


def test_labels_of_the_web_view_need_no_file(doteval_: CommandLine, url: str) -> None:
    ran = doteval_("judge-check", "x", "--storage", url)
    assert ran.code == 2
    assert "doteval view --allow-labels" in ran.err
    with Store.open(url) as store, contextlib.closing(RowLabelWriter(url)) as labels:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        said = ((0, "ann", "right"), (1, "ann", "wrong"), (1, "bob", "right"), (8, "ann", "wrong"))
        for index, person, judgement in said:
            labels.put(evaluation.id, index, 0, person=person, judgement=LabelJudgement(judgement), note=None)
    found = json.loads(doteval_("judge-check", "x", "--storage", url, "--json").out)
    assert (found["score"], found["rows"], found["labels"], found["agreed"]) == ("judge", 2, 3, 2)
    assert (found["agreement"]["statistic"], found["labels_without_score"]) == ("alpha", 1)
    assert doteval_("judge-check", "x", "--key", "text", "--storage", url).code == 2
    shown = doteval_("show", "x", "--row", "1", "--storage", url).out
    assert "labelled wrong by ann" in shown
    document = json.loads(doteval_("show", "x", "--row", "1", "--json", "--storage", url).out)
    (record,) = document["evaluations"][0]["records"]
    assert (record["label"], [each["person"] for each in record["labels"]]) == ("disputed", ["ann", "bob"])
    chosen = ("--columns", "key,label", "--where", "label != null")
    table = doteval_("export", "x", "-", "--format", "csv", *chosen, "--storage", url)
    assert table.out.split() == ["key,label", "k0,right", "k1,disputed", "k8,wrong"]
