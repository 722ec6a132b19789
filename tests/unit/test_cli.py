"""The command line on a real result store: what it prints, what it exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import doteval.cli
from doteval.cli.application import EXIT_CODES, GROUPS
from doteval.errors import BrokerError, CodeMismatchError, DotEvalError, StoreError, UsageError
from doteval.experiments import EvaluationStatus
from doteval.results import ErrorClass, Outcome, RowError, RowStatus
from doteval.settings import Settings
from doteval.store import NewResult, Store
from tests.unit.cli_support import CommandLine, complete, fill

COMMANDS = [entry.name for entries in GROUPS.values() for entry in entries]


@pytest.fixture
def doteval_(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DOTEVAL_{name.upper()}", raising=False)
    monkeypatch.delenv("DOTEVAL_DEBUG", raising=False)
    # pytest's own processes may have it, and tables are as wide as it says.
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def results(tmp_path: Path) -> str:
    path = tmp_path / "results.db"
    fill(path)
    return str(path)


def words(line: str) -> list[str]:
    return line.split()


def line_with(out: str, text: str) -> str:
    found = [line for line in out.splitlines() if text in line]
    assert found, f"no line with {text!r} in:\n{out}"
    return found[0]


# Help


def test_help_names_every_command_in_its_group_and_every_exit_code(doteval_: CommandLine) -> None:
    ran = doteval_("--help")
    assert ran.code == 0
    for group, entries in GROUPS.items():
        assert f"{group}:" in ran.out
        for entry in entries:
            assert words(line_with(ran.out, f"  {entry.name} "))[0] == entry.name
    section = ran.out[ran.out.index("Exit codes:") :]
    for code, meaning in EXIT_CODES:
        assert meaning in line_with(section, f"  {code} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(doteval_: CommandLine, name: str) -> None:
    ran = doteval_(name, "--help")
    assert ran.code == 0
    assert f"doteval {name}" in ran.out


def test_exit_codes_of_errors_are_documented(doteval_: CommandLine) -> None:
    documented = {code for code, _ in EXIT_CODES}
    pending: list[type[DotEvalError]] = [DotEvalError]
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        assert str(error.exit_code) in documented
    assert str(doteval.cli.INTERRUPTED) in documented
    assert str(doteval.cli.UNEXPECTED) in documented


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from doteval.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(ran.stderr.split())
    assert "click" in loaded
    assert not loaded & {"rich", "sqlalchemy", "sqlmodel", "celery", "pytest", "pydantic", "scipy", "numpy", "openai"}


def test_version(doteval_: CommandLine) -> None:
    assert doteval_("--version").out == f"doteval {doteval.__version__}\n"


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
    assert "doteval show 'alpha' --errors" in ran.out


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
    assert words(line_with(ran.out, "no [bold]such[/bold] word"))[-2:] == ["1", "3"]
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
    assert line_with(ran.out, "Errors: 1 evaluation")
    # None of these failed.
    more = ran.out[ran.out.index("eval_more") :]
    assert heading not in more
    assert "Errors:" not in more
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
    assert "It is to be run again" in ran.out
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


def test_show_the_last_errors_and_their_classes(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("show", "alpha", "--storage", results, "--errors")
    assert "row 3 on here:1  ValueError: no [bold]such[/bold] word" in ran.out[ran.out.index("The last ones:") :]
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


def test_usage_by_worker_has_rows_and_loads(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("usage", "alpha", "--storage", results, "--by", "worker")
    assert words(line_with(ran.out, "local here:1"))[2:] == ["7", "3", "39", "1", "1.50", "s"]
    (worker,) = json.loads(doteval_("usage", "alpha", "--storage", results, "--by", "worker", "--json").out)["workers"]
    assert worker["rows"] == 7
    (fixture,) = worker["fixtures"]
    assert (fixture["fixture"], fixture["loads"], fixture["load_seconds"]) == ("lexicon", 1, 1.5)


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


@pytest.mark.parametrize(("answer", "left"), [("n\n", True), ("\n", True), ("y\n", False)])
def test_delete_asks(results: str, answer: str, left: bool) -> None:
    ran = run_process("delete", "alpha", "--storage", results, stdin=answer)
    assert ran.returncode == 0
    assert "2 evaluations with 7 results" in ran.stderr
    with Store.open(results) as store:
        assert bool(store.experiments.overviews()) is left


# Errors


def test_an_unknown_experiment_names_the_nearest(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("show", "alhpa", "--storage", results)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert "'alpha'" in ran.err
    assert "Traceback" not in ran.err


def test_a_missing_store(doteval_: CommandLine, tmp_path: Path) -> None:
    ran = doteval_("list", "--storage", str(tmp_path / "none.db"))
    assert ran.code == 2
    assert "none.db" in ran.err
    assert not (tmp_path / "none.db").exists()


def test_an_unreachable_store_hides_its_password(doteval_: CommandLine) -> None:
    ran = doteval_("list", "--storage", "postgresql://ann:hunter2@127.0.0.1:1/results")
    assert ran.code == 4
    assert "ann:***@127.0.0.1" in ran.err
    assert "hunter2" not in ran.err


def test_an_unknown_command_names_the_nearest(doteval_: CommandLine) -> None:
    ran = doteval_("shwo")
    assert ran.code == 2
    assert "'show'" in ran.err


def test_settings_are_used(doteval_: CommandLine, results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOTEVAL_STORAGE", results)
    assert "alpha" in doteval_("list").out


class Broken:
    """A command that raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def raise_error(*args: Any, **options: Any) -> None:
            raise error

        monkeypatch.setattr(Store, "open", raise_error)


@pytest.mark.parametrize(
    "error",
    [UsageError("what", remedy="do this"), BrokerError("what"), StoreError("what"), CodeMismatchError("what")],
    ids=lambda error: type(error).__name__,
)
def test_errors_exit_with_their_code(
    doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch, error: DotEvalError
) -> None:
    Broken(monkeypatch, error)
    ran = doteval_("list")
    assert (ran.code, ran.out) == (error.exit_code, "")
    assert ran.err == "Error: what\n" + (f"{error.remedy}\n" if error.remedy else "")


def test_an_unexpected_error_fits_on_one_screen(doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    Broken(monkeypatch, RuntimeError("surprise " * 1000))
    ran = doteval_("list")
    assert ran.code == 70
    assert "RuntimeError: surprise" in ran.err
    assert "DOTEVAL_DEBUG=1" in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err) < 24 * 80
    monkeypatch.setenv("DOTEVAL_DEBUG", "1")
    ran = doteval_("list")
    assert ran.code == 70
    assert "Traceback" in ran.err
    assert "raise_error" in ran.err


def test_debugging_shows_the_traceback_of_known_errors_too(
    doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Broken(monkeypatch, StoreError("what"))
    monkeypatch.setenv("DOTEVAL_DEBUG", "1")
    ran = doteval_("list")
    assert ran.code == 4
    assert "raise_error" in ran.err


def test_an_interrupt_is_130_and_quiet(doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    Broken(monkeypatch, KeyboardInterrupt())
    ran = doteval_("list")
    assert ran.code == 130
    assert ran.err.strip() == ""


# As a process


def run_process(*args: str, stdin: str = "", environment: dict[str, str] | None = None) -> Any:
    return subprocess.run(
        [sys.executable, "-c", "from doteval.cli import main; main()", *args],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env={**os.environ, **(environment or {})},
    )


@pytest.mark.parametrize("options", [["list"], ["show", "alpha", "--full"], ["show", "alpha", "--json"], ["--help"]])
def test_a_closed_pipe_is_quiet(results: str, options: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from doteval.cli import main; main()", *options]
    ran = subprocess.run(
        command,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "DOTEVAL_STORAGE": results},
    )
    os.close(writer)
    assert ran.returncode == 141
    assert ran.stderr == ""


def test_json_is_json_in_any_encoding(results: str) -> None:
    with Store.open(results) as store:
        store.experiments.begin("naïve \udc80 名")
    for encoding in ("ascii", "latin-1", "utf-8"):
        ran = run_process("list", "--json", "--storage", results, environment={"PYTHONIOENCODING": encoding})
        assert ran.returncode == 0, ran.stderr
        names = [experiment["name"] for experiment in json.loads(ran.stdout)["experiments"]]
        assert names == ["naïve \udc80 名", "alpha"]
        assert run_process("list", "--storage", results, environment={"PYTHONIOENCODING": encoding}).returncode == 0


# submit and worker


def test_submit_refuses_workers_and_a_broker(doteval_: CommandLine) -> None:
    ran = doteval_("submit", "eval_x.py", "--broker", "redis://:hunter2@host", "--workers", "2")
    assert ran.code == 2
    assert "--workers" in ran.err
    assert "hunter2" not in ran.err


@pytest.mark.parametrize("value", ["0", "-1", "some", "1.5"])
@pytest.mark.parametrize("option", ["--workers", "--concurrency", "--rows-per-task", "--samples"])
def test_submit_refuses_numbers_below_one(doteval_: CommandLine, option: str, value: str) -> None:
    ran = doteval_("submit", "eval_x.py", option, value)
    assert ran.code == 2
    assert option in ran.err


def test_submit_of_a_missing_file(doteval_: CommandLine) -> None:
    ran = doteval_("submit", "eval_none.py", "--experiment", "first")
    assert ran.code == 2
    assert "eval_none.py" in ran.err


def test_worker_needs_a_broker(doteval_: CommandLine) -> None:
    ran = doteval_("worker", ".")
    assert ran.code == 2
    assert "--broker" in ran.err
