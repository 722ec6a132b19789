"""The commands for experiments as a whole: `list`, `status`, `watch`, `rename` and `delete`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import pytest

from doteval.cli import terminal
from doteval.cli.ci_reports import CiReports
from doteval.cli.final_report import FinalReport
from doteval.cli.progress import ProgressDisplay
from doteval.cli.show import at_one_moment
from doteval.cli.thresholds import Thresholds
from doteval.core.experiments import EvaluationStatus
from doteval.store import Store
from tests.support.cli import CommandLine, complete, line_with, words
from tests.support.store_workload import begin, failed, results, rows

pytestmark = pytest.mark.usefixtures("without_settings")


# list


def test_list(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("list", "--storage", results)
    assert ran.code == 0
    line = words(line_with(ran.out, "alpha"))
    assert line[:2] == ["alpha", "running"]
    assert line[-4:] == ["2", "7/9", "1", "1"]


def test_list_by_name(doteval_: CommandLine, results: str) -> None:
    assert "alpha" in doteval_("list", "--storage", results, "--name", "LPH").out
    ran = doteval_("list", "--storage", results, "--name", "beta")
    assert (ran.code, ran.out) == (0, f"No experiments whose name contains 'beta' in sqlite:///{results}\n")


def test_list_as_json(doteval_: CommandLine, results: str) -> None:
    document = json.loads(doteval_("list", "--storage", results, "--json").out)
    (experiment,) = document["experiments"]
    assert experiment["name"] == "alpha"
    assert experiment["status"] == "running"
    assert experiment["evaluations"] == 2
    assert experiment["rows"] == {"total": 9, "done": 5, "failed": 1, "skipped": 1, "pending": 2}


# status and watch


def test_status(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("status", "alpha", "--storage", results)
    assert words(line_with(ran.out, "eval_words")) == [
        *("eval_words[gpt-small]", "completed", "5", "3", "1", "1", "0", "0")
    ]
    assert words(line_with(ran.out, "eval_more")) == ["eval_more", "running", "4", "2", "0", "0", "2", "0"]
    assert "No worker processes" in ran.out


def test_status_as_json(doteval_: CommandLine, results: str) -> None:
    document = json.loads(doteval_("status", "alpha", "--storage", results, "--json").out)
    assert [evaluation["rows"]["pending"] for evaluation in document["evaluations"]] == [0, 2]
    assert document["workers"] == []


def test_watch_ends_when_the_experiment_is_completed(
    doteval_: CommandLine, results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def complete_after_the_second_look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            complete(Path(results))

    monkeypatch.setattr("doteval.cli.watch.time.sleep", complete_after_the_second_look)
    ran = doteval_("watch", "alpha", "--storage", results)
    assert ran.code == 0
    assert len(looks) == 2
    assert "eval_more: 2/4 rows" in ran.out
    assert "completed  eval_more: 2 rows" in ran.out
    assert "exact_match" in ran.out


def test_watch_follows_an_experiment_that_is_renamed(
    doteval_: CommandLine, results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename_and_complete(seconds: float) -> None:
        complete(Path(results))
        with Store.open(results) as store:
            store.experiments.rename("alpha", "beta")

    monkeypatch.setattr("doteval.cli.watch.time.sleep", rename_and_complete)
    ran = doteval_("watch", "alpha", "--storage", results)
    assert (ran.code, ran.err) == (0, "")
    assert "completed  eval_more: 2 rows" in ran.out


def test_watch_of_an_experiment_that_is_deleted_meanwhile(
    doteval_: CommandLine, results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete(seconds: float) -> None:
        with Store.open(results) as store:
            store.experiments.delete("alpha")

    monkeypatch.setattr("doteval.cli.watch.time.sleep", delete)
    ran = doteval_("watch", "alpha", "--storage", results)
    assert ran.code == 2
    assert "the experiment 'alpha' has been deleted" in ran.err


def test_the_final_report_has_the_current_name(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    complete(Path(results))
    with Store.open(results) as store:
        experiment = store.experiments.find("alpha")
        display = ProgressDisplay(terminal.console())
        display.began(experiment, store.evaluations.of(experiment), 1)
        assert display.experiment_name == "alpha"
        report = FinalReport(terminal.console(), "false", Thresholds(), CiReports())
        report.read(store, store.evaluations.of(experiment))
        store.experiments.rename("alpha", "beta two")
        display.moved([store.evaluations.by_uid(each.uid) for each in store.evaluations.of(experiment)])
        assert display.experiment_name == "beta two"
        report.print(store, experiment)
    assert "To see them: doteval show 'beta two' --errors" in capsys.readouterr().out


def test_rows_that_end_after_a_cancellation_are_in_the_final_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table, thresholds and counts are of one moment, which is later than that of the line at the end."""
    with Store.open(str(tmp_path / "results.db")) as store:
        evaluation = begin(store, 4, name="x")
        store.results.write(results(evaluation, rows(1)), None)
        store.evaluations.set_status(evaluation.id, EvaluationStatus.CANCELLED, "cancelled by user")
        report = FinalReport(terminal.console(), "false", Thresholds(max_errors=1), CiReports())
        report.read(store, [store.evaluations.by_uid(evaluation.uid)])
        store.results.write(results(evaluation, rows(2, first=1), failed()), None)
        report.print(store, evaluation.experiment)
        ((judged, figures),) = report._read
        assert (judged.counts.failed, figures.summary.counts.failed) == (2, 2)
        with click.Context(click.Command("submit")), pytest.raises(click.exceptions.Exit):
            report.judge(store, evaluation.experiment)
    printed = capsys.readouterr()
    assert "eval_qa: 2 rows in flight ended later, and the figures include them" in printed.out
    assert "2 rows have failed" in printed.err


@pytest.mark.parametrize("watched", [False, True])
def test_what_another_command_begins_again_is_reported_as_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], watched: bool
) -> None:
    """A command that has waited for the end of this one looks, before this one reports, for rows that are left."""
    with Store.open(str(tmp_path / "results.db")) as store:
        evaluation = begin(store, 2, name="x")
        store.results.write(results(evaluation, rows(2)), None)
        assert store.evaluations.complete(evaluation.id)
        ended = store.evaluations.by_uid(evaluation.uid)
        report = FinalReport(terminal.console(), "false", Thresholds(max_errors=1), CiReports())
        report.read(store, [ended])
        store.evaluations.begin(evaluation.experiment, evaluation.spec)
        assert store.evaluations.by_uid(evaluation.uid).status is EvaluationStatus.RUNNING
        if watched:
            assert at_one_moment(store, ended)[0].status is EvaluationStatus.COMPLETED
        else:
            report.print(store, evaluation.experiment)
            report.judge(store, evaluation.experiment)
            assert "completed" in capsys.readouterr().out


def test_watch_of_an_evaluation_that_failed_exits_with_5(doteval_: CommandLine, results: str) -> None:
    complete(Path(results))
    with Store.open(results) as store:
        evaluation = store.evaluations.of(store.experiments.find("alpha"))[0]
        store.evaluations.set_status(evaluation.id, EvaluationStatus.FAILED, "the fixture 'lexicon' cannot be loaded")
    ran = doteval_("watch", "alpha", "--storage", results)
    assert ran.code == 5
    assert "the fixture 'lexicon' cannot be loaded" in ran.err


# rename and delete


def test_rename(doteval_: CommandLine, results: str) -> None:
    assert doteval_("rename", "alpha", "βeta / 2", "--storage", results).code == 0
    assert "βeta / 2" in doteval_("list", "--storage", results).out
    assert doteval_("show", "alpha", "--storage", results).code == 2


def test_rename_to_a_taken_name(doteval_: CommandLine, results: str) -> None:
    with Store.open(results) as store:
        store.experiments.begin("beta")
    ran = doteval_("rename", "alpha", "beta", "--storage", results)
    assert ran.code == 2
    assert "'beta'" in ran.err


def test_delete(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("delete", "alpha", "--yes", "--storage", results)
    assert (ran.code, ran.out) == (0, "Deleted 'alpha': 2 evaluations with 7 results\n")
    assert doteval_("show", "alpha", "--storage", results).code == 2


def test_delete_that_nobody_can_confirm(doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch, results: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    ran = doteval_("delete", "alpha", "--storage", results)
    assert ran.code == 2
    assert "nothing was deleted" in ran.err
    assert "--yes" in ran.err
    with Store.open(results) as store:
        assert len(store.experiments.overviews()) == 1


@pytest.mark.parametrize(("answer", "left"), [("n\n", True), ("\n", True), ("y\n", False)])
def test_delete_asks(
    doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch, results: str, answer: str, left: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    ran = doteval_("delete", "alpha", "--storage", results)
    assert ran.code == 0
    assert "2 evaluations with 7 results" in ran.err
    with Store.open(results) as store:
        assert bool(store.experiments.overviews()) is left
