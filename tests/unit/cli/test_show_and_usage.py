"""The commands that print results: `show` and `usage`, as tables and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doteval.core.histogram import Latency
from doteval.core.package_prices import PACKAGE, package_prices, package_version
from doteval.core.provenance import Provenance
from doteval.core.results import ErrorClass, Outcome, RowError, RowStatus, Usage
from doteval.store import LostUsage, NewResult, Store
from tests.support.cli import CommandLine, line_with, words
from tests.support.comparisons import add_experiment
from tests.support.passing_time import let_pass, work_again
from tests.support.store_workload import begin, done, rows
from tests.support.store_workload import results as results_of

pytestmark = pytest.mark.usefixtures("without_settings")


# show


def test_show(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("show", "alpha", "--storage", results)
    assert ran.code == 0
    assert "completed" in line_with(ran.out, "evals/eval_words.py::eval_words[gpt-small]")
    line = words(line_with(ran.out, "exact_match"))
    # Two of four: the failed row counts as False. The interval is Wilson's of 2 in 4.
    assert line[:8] == ["exact_match", "accuracy", "0.500", "0.150", "–", "0.850", "4", "1"]
    assert line[8] == "1"
    assert "2.500" in line_with(ran.out, "mean_length")
    assert "nosuchmetric" in line_with(ran.out, "label nosuchmetric:")
    assert line_with(ran.out, "2/4 rows are finished")
    assert "doteval show alpha --errors" in ran.out


def test_show_and_status_tell_the_time_worked(doteval_: CommandLine, results: str) -> None:
    with Store.open(results) as store:
        first = store.evaluations.of(store.experiments.find("alpha"))[0]
        let_pass(store, 86400.0)
        work_again(store, first, 7500.0)
        let_pass(store, 86400.0)
    assert "2 h 05 min" in doteval_("show", "alpha", "--storage", results).out
    for command in ("show", "status"):
        document = json.loads(doteval_(command, "alpha", "--storage", results, "--json").out)
        found = document["evaluations"][0]
        assert found["seconds"] == pytest.approx(7500.0, abs=50)
        assert found["elapsed_seconds"] == pytest.approx(86400.0 + 7500.0, abs=50)


def test_show_one_evaluation(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("show", "alpha", "--storage", results, "--evaluation", "eval_more")
    assert "mean_length" in ran.out
    assert "exact_match" not in ran.out


def test_show_of_an_unknown_evaluation_names_those_there_are(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("show", "alpha", "--storage", results, "--evaluation", "nothing")
    assert ran.code == 2
    assert "evals/eval_more.py::eval_more" in ran.err


def test_show_errors_keeps_brackets_and_drops_control_characters(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("show", "alpha", "--storage", results, "--errors", "--full")
    assert words(line_with(ran.out, "no [bold]such[/bold] word"))[2:4] == ["1", "3"]
    assert "word 0" in ran.out
    assert "Classify 2" in ran.out
    assert "Traceback: line 7" in ran.out
    assert "\x1b" not in ran.out


def test_show_as_json(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("show", "alpha", "--storage", results, "--json", "--errors", "--full")
    words_, more = json.loads(ran.out)["evaluations"]
    assert (words_["name"], words_["path"]) == ("eval_words[gpt-small]", "evals/eval_words.py")
    assert words_["rows"] == {"total": 5, "done": 3, "failed": 1, "skipped": 1, "pending": 0}
    metric = words_["scores"][0]["metrics"][0]
    assert (metric["name"], metric["value"], metric["n"]) == ("accuracy", 0.5, 4)
    assert metric["without_failed"] == pytest.approx(2 / 3)
    assert metric["interval"] == [pytest.approx(0.15, abs=0.001), pytest.approx(0.85, abs=0.001)]
    assert words_["errors"] == [
        {
            "type": "ValueError",
            "message": "no [bold]such[/bold] word",
            "class": "evaluation",
            "count": 1,
            "example_row": 3,
        }
    ]
    assert [record["row"] for record in words_["records"]] == [0, 1, 2, 3, 4]
    first = words_["records"][0]
    assert first["values"] == {"text": "word 0"}
    assert first["model_response"] == "noun \x1b[31m"
    assert first["scores"][0] == {"name": "exact_match", "value": True, "metadata": {}}
    assert first["usage"][0]["prompt_tokens"] == 10
    assert more["status"] == "running"
    assert more["finished_at"] is None


def test_show_has_notes_on_the_dataset(doteval_: CommandLine, results: str) -> None:
    with Store.open(results) as store:
        (words_, _) = store.evaluations.of(store.experiments.find("alpha"))
        store.rows.set_total(
            words_.id, 5, complete=True, fingerprint=None, notes=["the column 'b' is \x1b[31m missing"]
        )
    ran = doteval_("show", "alpha", "--storage", results)
    assert "\x1b" not in ran.out
    # Beside the figures of this evaluation, and no other.
    assert ran.out.index("exact_match") < ran.out.index("the column 'b' is") < ran.out.index("eval_more")
    first, second = json.loads(doteval_("show", "alpha", "--storage", results, "--json").out)["evaluations"]
    assert (first["dataset_notes"], second["dataset_notes"]) == (["the column 'b' is \x1b[31m missing"], [])


@pytest.mark.parametrize(
    ("errors_as", "figures", "n", "heading"),
    [("false", ("0.500", "0.667"), "4", "without errors"), ("excluded", ("0.667", "0.500"), "3", "errors as False")],
)
def test_show_has_both_figures_where_rows_failed(
    doteval_: CommandLine, results: str, errors_as: str, figures: tuple[str, str], n: str, heading: str
) -> None:
    ran = doteval_("show", "alpha", "--storage", results, "--errors-as", errors_as)
    assert line_with(ran.out, "95% interval").rstrip().endswith(heading)
    line = words(line_with(ran.out, "exact_match"))
    assert (line[2], line[-1]) == figures
    assert line[6] == n
    assert line_with(ran.out, "Errors by class: evaluation 1")
    # None of these failed.
    more = ran.out[ran.out.index("eval_more") :]
    assert heading not in more
    assert "Errors by class" not in more
    document = json.loads(doteval_("show", "alpha", "--storage", results, "--errors-as", errors_as, "--json").out)
    metric = document["evaluations"][0]["scores"][0]["metrics"][0]
    assert metric["value"] == pytest.approx(float(figures[0]), abs=0.001)
    assert metric["failed_as_false"] == 0.5
    assert metric["without_failed"] == pytest.approx(2 / 3)
    assert document["evaluations"][0]["error_classes"] == {"evaluation": 1}


def test_show_one_row_with_every_attempt(doteval_: CommandLine, results: str) -> None:
    with Store.open(results) as store:
        (words_, _) = store.evaluations.of(store.experiments.find("alpha"))
        store.rows.retry_failed(words_.id)
        (row,) = store.rows.pending(words_.id, 3, 3)
        error = RowError("RateLimitError", "slow\ndown", ErrorClass.INFRASTRUCTURE)
        store.results.write([NewResult(words_.id, row, Outcome(RowStatus.FAILED, 1e9, 2.0, error=error))], None)
        store.rows.retry_failed(words_.id)
    ran = doteval_("show", "alpha", "--storage", results, "--evaluation", "words", "--row", "3")
    assert ran.code == 0
    assert words(line_with(ran.out, "no [bold]such[/bold] word"))[:2] == ["1", "failed"]
    assert "here:1" in line_with(ran.out, "no [bold]such[/bold] word")
    assert words(line_with(ran.out, "infrastructure"))[:2] == ["2", "failed"]
    assert "It will run again" in ran.out
    assert "exact_match" not in ran.out
    document = json.loads(
        doteval_("show", "alpha", "--storage", results, "--evaluation", "words", "--row", "3", "--json").out
    )
    (evaluation,) = document["evaluations"]
    assert [attempt["error"]["class"] for attempt in evaluation["attempts"]] == ["evaluation", "infrastructure"]
    assert [attempt["replaced"] for attempt in evaluation["attempts"]] == [True, False]
    assert [record["row"] for record in evaluation["records"]] == [3]


def test_show_a_row_that_is_pending_and_one_that_does_not_exist(doteval_: CommandLine, results: str) -> None:
    arguments = ("show", "alpha", "--storage", results, "--evaluation", "more", "--row")
    assert "row 2 is pending" in doteval_(*arguments, "2").out
    ran = doteval_(*arguments, "4")
    assert ran.code == 2
    assert "0 to 3" in ran.err


def test_show_a_row_of_the_evaluations_that_have_it(doteval_: CommandLine, tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "results.db")) as store:
        for name, count in (("eval_long", 3), ("eval_short", 1)):
            add_experiment(store, "first", {"right": [True] * count}, name=name, keys=["9a", "77", "c"][:count])
        url = store.url
    ran = doteval_("show", "first", "--row", "2", "--storage", url)
    assert (ran.code, "eval_long" in ran.out, "eval_short" in ran.out) == (0, True, False)
    document = json.loads(doteval_("show", "first", "--row", "2", "--json", "--storage", url).out)
    assert [each["name"] for each in document["evaluations"]] == ["eval_long"]
    assert "row 1  done" in doteval_("show", "first", "--row", "77", "--storage", url).out
    # A short number is an index, or all of a key.
    for missing in ("3", "9", "7"):
        ran = doteval_("show", "first", "--row", missing, "--storage", url)
        assert (ran.code, ran.out) == (2, "")


def test_show_the_last_errors_and_their_classes(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("show", "alpha", "--storage", results, "--errors")
    assert (
        "row 3 on here:1  ValueError: no [bold]such[/bold] word"
        in ran.out[ran.out.index("The most recent failures:") :]
    )
    document = json.loads(doteval_("show", "alpha", "--storage", results, "--errors", "--json").out)
    (last,) = document["evaluations"][0]["last_errors"]
    assert (last["row"], last["worker"], last["error"]["class"]) == (3, "here:1", "evaluation")


def test_show_without_options_has_no_records_in_json(doteval_: CommandLine, results: str) -> None:
    evaluations = json.loads(doteval_("show", "alpha", "--storage", results, "--json").out)["evaluations"]
    assert all("records" not in evaluation and "errors" not in evaluation for evaluation in evaluations)


# usage


def test_usage(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("usage", "alpha", "--storage", results)
    assert words(line_with(ran.out, "lexicon"))[:4] == ["lexicon", "1", "1.50", "s"]
    assert "calls 12,345, cache hits 3" in line_with(ran.out, "lexicon")
    figures = ["3", "6", "75.0%", "30", "9", "$1.50", "0.10", "s", "0.10", "s", "0.10", "s", "6.00", "s", "39"]
    assert words(line_with(ran.out, "gpt-small")) == ["gpt-small", *figures]


def test_usage_says_what_was_paid_and_is_in_no_result(doteval_: CommandLine, results: str) -> None:
    assert "Paid besides" not in doteval_("usage", "alpha", "--storage", results).out
    with Store.open(results) as store:
        evaluation = store.evaluations.of(store.experiments.find("alpha"))[0]
        used = Usage("gpt-small", requests=2, prompt_tokens=1_000, completion_tokens=240, cost=0.25)
        store.usage.add_lost([LostUsage(evaluation.uid, 0, 0, (used,))], None)
    for by in ((), ("--by", "evaluation")):
        ran = doteval_("usage", "alpha", "--storage", results, *by)
        assert "Paid besides: 2 requests, 1,240 tokens and $0.2500, by executions without a stored result" in " ".join(
            ran.out.split()
        )


@pytest.mark.parametrize(("by", "shown", "hidden"), [("fixture", "lexicon", "gpt"), ("model", "gpt", "lexicon")])
def test_usage_by(doteval_: CommandLine, results: str, by: str, shown: str, hidden: str) -> None:
    for options in ([], ["--json"]):
        ran = doteval_("usage", "alpha", "--storage", results, "--by", by, *options)
        assert shown in ran.out
        assert hidden not in ran.out


def test_usage_as_json(doteval_: CommandLine, results: str) -> None:
    document = json.loads(doteval_("usage", "alpha", "--storage", results, "--json").out)
    (fixture,) = document["fixtures"]
    assert (fixture["fixture"], fixture["loads"], fixture["torn_down"]) == ("lexicon", 1, 1)
    assert fixture["stats"] == {"calls": 12_345, "cache": {"hits": 3}}
    (model,) = document["models"]
    assert (model["kept"]["requests"], model["spent"]["requests"], model["kept"]["cost"]) == (3, 3, 1.5)
    assert (model["kept"]["hit_rate"], model["kept"]["waited"]) == (0.75, 6)
    assert model["kept"]["latency"]["p99"] == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(("by", "name"), [("worker", "local here:1"), ("evaluation", "eval_words")])
def test_usage_parted_up(doteval_: CommandLine, results: str, by: str, name: str) -> None:
    ran = doteval_("usage", "alpha", "--storage", results, "--by", by)
    assert name in line_with(ran.out, "gpt-small")
    assert "lexicon" not in ran.out
    (group,) = json.loads(doteval_("usage", "alpha", "--storage", results, "--by", by, "--json").out)[f"{by}s"]
    assert name in group["name"]
    assert group["models"][0]["kept"]["requests"] == 3


def test_usage_says_where_its_prices_come_from(doteval_: CommandLine, results: str) -> None:
    assert json.loads(doteval_("usage", "alpha", "--storage", results, "--json").out)["prices"] is None
    assert "genai-prices" not in doteval_("usage", "alpha", "--storage", results).out
    with Store.open(results) as store:
        experiment = store.experiments.find("alpha")
        store.provenance.add(experiment, Provenance(("doteval", "submit"), versions={PACKAGE: package_version()}))
    found = json.loads(doteval_("usage", "alpha", "--storage", results, "--json").out)["prices"]
    checked = package_prices().checked
    assert checked is not None
    assert found == {"package": "genai-prices", "versions": [package_version()], "checked": checked.isoformat()}
    out = " ".join(doteval_("usage", "alpha", "--storage", results).out.split())
    assert f"else by genai-prices {package_version()}, checked up to {checked.isoformat()}" in out
    for format_, suffix in (("markdown", "md"), ("html", "html")):
        file = Path(results).with_suffix(f".{suffix}")
        ran = doteval_("report", "alpha", "--format", format_, "-o", str(file), "--storage", results)
        assert ran.code == 0, ran.err
        assert f"checked up to {checked.isoformat()}" in file.read_text(encoding="utf-8")
    with Store.open(results) as store:
        store.provenance.add(experiment, Provenance(("doteval", "submit", "again"), versions={PACKAGE: "0.0.1"}))
    found = json.loads(doteval_("usage", "alpha", "--storage", results, "--json").out)["prices"]
    # Of a version that is not installed, nobody knows how new its prices are.
    assert (found["versions"], found["checked"]) == (["0.0.1", package_version()], None)


def test_usage_by_worker_has_rows_and_loads(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("usage", "alpha", "--storage", results, "--by", "worker")
    assert words(line_with(ran.out, "local here:1"))[2:] == ["7", "3", "39", "1", "1.50", "s"]
    (worker,) = json.loads(doteval_("usage", "alpha", "--storage", results, "--by", "worker", "--json").out)["workers"]
    assert worker["rows"] == 7
    (fixture,) = worker["fixtures"]
    assert (fixture["fixture"], fixture["loads"], fixture["load_seconds"]) == ("lexicon", 1, 1.5)


@pytest.mark.parametrize(
    ("usage", "named"),
    [
        (Usage("m", 2, 2, latency=Latency.of(0.5)), True),
        (Usage("m", 2, 2, prompt_tokens=3, latency=Latency.of(0.5)), False),
        # No reply came.
        (Usage("m", 2, 2), False),
    ],
)
def test_models_whose_replies_report_no_tokens_are_named(
    doteval_: CommandLine, tmp_path: Path, usage: Usage, named: bool
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with Store.open(url) as store:
        evaluation = begin(store, 1)
        store.results.write(results_of(evaluation, rows(1), done(usage=(usage,))), None)
    ran = doteval_("usage", "an experiment", "--storage", url)
    assert ran.code == 0
    assert ("The replies of m reported no tokens" in ran.out) is named


@pytest.mark.parametrize(
    ("used", "shown"),
    [
        ([Usage("m", 1, prompt_tokens=5)], "No price is known for m: tokens only."),
        (
            [Usage("m", 1, prompt_tokens=10, cost=0.5), Usage("m", 1, prompt_tokens=5, completion_tokens=2)],
            "7 tokens of m are not in its cost",
        ),
    ],
)
def test_tokens_without_a_price_are_said(doteval_: CommandLine, tmp_path: Path, used: list[Usage], shown: str) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with Store.open(url) as store:
        evaluation = begin(store, 1)
        store.results.write(results_of(evaluation, rows(1), done(usage=tuple(used))), None)
    for options in ((), ("--by", "evaluation")):
        ran = doteval_("usage", "an experiment", "--storage", url, *options)
        assert shown in " ".join(ran.out.split())
    (model,) = json.loads(doteval_("usage", "an experiment", "--storage", url, "--json").out)["models"]
    assert model["unpriced_tokens"] == used[-1].prompt_tokens + used[-1].completion_tokens
