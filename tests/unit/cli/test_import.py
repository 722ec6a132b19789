"""`doteval import`: what becomes of logs and tables, what reads them afterwards, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from doteval.core.experiments import EvaluationStatus
from doteval.core.results import ErrorClass, Outcome, Record, Row, RowStatus
from doteval.store import NewResult, Store
from tests.support.cli import CommandLine, line_with
from tests.support.comparisons import add_experiment
from tests.support.foreign_logs import (
    DEFLATED,
    ZSTANDARD,
    dotevals_lines,
    inspect_log,
    write_dotevals,
    write_eval,
    write_json,
)

pytestmark = pytest.mark.usefixtures("without_settings")


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return str(tmp_path / "results.db")


def records(storage: str, name: str) -> list[Record]:
    with Store.open(storage) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find(name))
        return list(store.results.records(evaluation.id))


@pytest.mark.parametrize("form", ["zstandard", "deflated", "json"])
def test_a_log_of_inspect_ai(doteval_: CommandLine, storage: str, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"log.{'json' if form == 'json' else 'eval'}"
    if form == "json":
        write_json(path, inspect_log())
    else:
        write_eval(path, inspect_log(), compression=ZSTANDARD if form == "zstandard" else DEFLATED)
    ran = doteval_("import", str(path), "--storage", storage)
    assert (ran.code, ran.err) == (0, "")
    assert "imported as log::inspect-ai::questions (3 rows, 6 results, 1 failed, completed)" in ran.out
    assert "note: its tag 'two words' cannot be a tag here" in ran.out
    assert "events of samples left out (6), samples without a value of sometimes (2)" in ran.out

    found = {(record.row.key, record.row.sample): record for record in records(storage, "log")}
    assert list(found) == [(key, sample) for key in "123" for sample in (0, 1)]
    first = found["1", 0]
    # A column of the row keeps its name, also if the sample's metadata has the same.
    values = {"id": 1, "input": "capital?", "target": "Paris", "topic": "places", "metadata.id": "x"}
    assert first.row.values == values
    assert {score.name: score.value for score in first.outcome.scores} == {
        "grade": True,
        "judge_tone": 0.5,
        "judge_length": 5,
        "sometimes": 2,
    }
    assert first.outcome.scores[0].metadata == {"value": "C", "answer": "a", "explanation": "why"}
    assert (first.outcome.prompt, first.outcome.model_response) == ("capital?", "Paris")
    assert first.outcome.seconds == 2.5
    (usage,) = first.outcome.usage
    assert (usage.model, usage.requests, usage.prompt_tokens, usage.completion_tokens) == ("mockllm/model", 1, 15, 3)
    assert (usage.cached_tokens, usage.reasoning_tokens, usage.cost, usage.seconds) == (5, 1, None, 0.5)
    second = found["2", 0]
    chat = [{"content": "short", "role": "system"}, {"content": "2+2", "role": "user"}]
    assert (second.row.values["input"], second.outcome.prompt) == (chat, chat)
    assert {score.name: score.value for score in second.outcome.scores}["grade"] == 0.5
    failed = found["3", 1].outcome
    assert failed.status is RowStatus.FAILED
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("ValueError", "no colour é")
    assert (failed.error.traceback, failed.error.error_class) == ("Traceback: line 7", ErrorClass.EVALUATION)


def test_figures_and_origin(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    log = inspect_log()
    log["eval"]["revision"] = {"type": "git", "origin": "o", "commit": "4517fb9d", "dirty": True}
    log["results"]["scores"][0]["metrics"] |= {"accuracy": {"value": 0.75}, "mine": {"value": 3}}
    doteval_("import", str(write_eval(tmp_path / "log.eval", log)), "--storage", storage)
    shown = json.loads(doteval_("show", "log", "--storage", storage, "--json").out)
    (evaluation,) = shown["evaluations"]
    metrics = {(score["name"], each["name"]): each for score in evaluation["scores"] for each in score["metrics"]}
    # As the log says, which leaves failed samples out.
    assert {name: each["without_failed"] for name, each in metrics.items()} == {
        ("grade", "accuracy"): 0.25,
        ("judge_tone", "mean"): 0.5,
        ("judge_length", "mean"): 4.0,
        ("judge_length", "std"): 1.0,
        ("sometimes", "mean"): 2.0,
    }
    assert evaluation["dataset_notes"] == [
        "imported from log.eval, written by inspect-ai 0.3.285",
        "its tag 'two words' cannot be a tag here",
        "grade accuracy is 0.75 in the log, and 0.25 from its scores here",
        "grade mine is 3 in the log; doteval does not compute it",
    ]
    assert (evaluation["created_at"], evaluation["seconds"]) == ("2026-11-01T10:00:00.000+00:00", 9.0)
    experiment = shown["experiment"]
    assert (experiment["tags"], experiment["note"]) == (["base"], "model=mockllm/model, dataset=questions, run=7")
    (command,) = experiment["commands"]
    assert (command["commit"], command["dirty"], command["versions"]) == ("4517fb9d", True, {"inspect_ai": "0.3.285"})
    assert command["started_at"] == "2026-11-01T10:00:00.000+00:00"


@pytest.mark.parametrize("nested", [False, True])
def test_a_directory_of_dotevals(doteval_: CommandLine, storage: str, tmp_path: Path, nested: bool) -> None:
    head, first, *others = dotevals_lines(nested=nested)
    # In the order in which rows ended, with a result that a later line replaces.
    earlier = {**others[1], "item_id": 0}
    write_dotevals(tmp_path / "stored", "old", [head, earlier, *reversed(others), first])
    ran = doteval_("import", str(tmp_path / "stored"), "--storage", storage)
    assert ran.code == 0
    assert "imported as old::dotevals::eval_stored (4 rows, 4 results, 1 failed, completed)" in ran.out
    assert "earlier results of rows that ran again left out (1)" in ran.out
    found = records(storage, "old")
    assert [record.row.values["text"] for record in found] == ["a", "b", "c", "d"]
    assert [[score.value for score in record.outcome.scores] for record in found] == [[True], [False], [], [True]]
    assert found[2].outcome.error is not None
    assert (found[2].outcome.error.type, found[2].outcome.error.message) == ("ValueError", "no answer: é")
    assert (found[1].outcome.prompt, found[1].outcome.model_response) == ("say b", "b")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_table(doteval_: CommandLine, storage: str, tmp_path: Path, suffix: str) -> None:
    lines: list[dict[str, Any]] = [
        {"id": "ä", "q": "one", "correct": True, "reply": "x", "why": ""},
        {"id": "b", "q": "two", "correct": False, "reply": "y", "why": ""},
        {"id": "c", "q": "three", "correct": None, "reply": "", "why": "no reply"},
    ]
    path = tmp_path / f"scores.{suffix}"
    if suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, lines)))
    else:
        rows = [[str("" if cell is None else cell) for cell in line.values()] for line in lines]
        path.write_text("\n".join(",".join(cells) for cells in [list(lines[0]), *rows]), encoding="utf-8")
    columns = ("--key", "id", "--score", "correct", "--response", "reply", "--error", "why")
    ran = doteval_("import", str(path), *columns, "--storage", storage)
    assert ran.code == 0
    assert f"imported as scores::scores.{suffix}::scores (3 rows, 3 results, 1 failed, completed)" in ran.out
    found = records(storage, "scores")
    assert [record.row.key for record in found] == ["ä", "b", "c"]
    assert found[1].row.values == {"id": "b", "q": "two"}
    assert [[score.value for score in record.outcome.scores] for record in found] == [[True], [False], []]
    assert (found[0].outcome.model_response, found[2].error) == ("x", "no reply")
    assert line_with(doteval_("show", "scores", "--storage", storage).out, "accuracy").split()[2] == "0.333"


def test_a_table_that_a_data_frame_wrote(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    frame = pandas.DataFrame({"id": [1, 2], "right": [True, None], "f1": [0.5, None], "why": [None, "no reply"]})
    frame.to_parquet(tmp_path / "scores.parquet")
    columns = ("--key", "id", "--score", "right", "--score", "f1", "--score", "f1", "--error", "why")
    ran = doteval_("import", str(tmp_path / "scores.parquet"), *columns, "--storage", storage)
    assert (ran.code, ran.err) == (0, "")
    found = records(storage, "scores")
    assert [[(score.name, score.value) for score in record.outcome.scores] for record in found] == [
        [("right", True), ("f1", 0.5)],
        [],
    ]
    assert [(record.row.key, record.error) for record in found] == [("1", None), ("2", "no reply")]


def test_compare_pairs_imported_and_own_rows_by_a_column(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    # In another order than our own rows.
    lines = [{"asked": f"question of key{n}", "n": 1, "right": n != 2} for n in reversed(range(20))]
    path.write_text("\n".join(map(json.dumps, lines)))
    doteval_("import", str(path), "--score", "right", "--storage", storage)
    with Store.open(storage) as store:
        add_experiment(store, "own", {"right": [True] * 20})
    command = ("compare", "own::eval_qa", "scores", "--storage", storage)
    (compared,) = json.loads(doteval_(*command, "--key", "question=asked", "--json").out)["evaluations"]
    assert compared["rows_matched"] == 20
    assert [(score["improved"], score["worsened"]) for score in compared["metrics"]] == [(0, 1)]
    (compared,) = json.loads(doteval_(*command, "--json").out)["evaluations"]
    assert compared["rows_matched"] == 0
    for key, message in {
        "question=n": "rows of scores.jsonl::scores cannot be paired by 'n': 20 rows have 1 value",
        "missing": "row 0 of evals/eval_qa.py::eval_qa has no column 'missing' to pair rows by",
        "question=": "it is COLUMN, or COLUMN=COLUMN",
    }.items():
        ran = doteval_(*command, "--key", key)
        assert (ran.code, ran.out) == (2, "")
        assert message in ran.err


def test_everything_that_reads_works_and_nothing_runs(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    path = str(write_eval(tmp_path / "log.eval", inspect_log()))
    for name in ("a", "b"):
        assert doteval_("import", path, "--name", name, "--storage", storage).code == 0
    for command in (
        ("list",),
        ("show", "a", "--where", "row.topic = 'sums' and score.grade = 0.5"),
        ("show", "a", "--failed"),
        ("show", "a", "--group-by", "row.topic"),
        ("export", "a", str(tmp_path / "a.csv")),
        ("compare", "a", "b"),
        ("history", "grade"),
        ("usage", "a"),
        ("recompute", "a", "--reducer", "max"),
        ("rename", "b", "c"),
        ("delete", "c", "--yes"),
    ):
        ran = doteval_(*command, "--storage", storage)
        assert ran.code == 0, (command, ran.err)
    ran = doteval_("retry", "a", "--storage", storage)
    assert ran.code == 2
    assert "the experiment 'a' cannot run rows again: its results were imported from" in ran.err
    with Store.open(storage) as store, pytest.raises(Exception, match="'a' cannot run evaluations: its results were"):
        store.experiments.begin("a")


def test_a_log_is_imported_once(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    path = write_eval(tmp_path / "log.eval", inspect_log())
    doteval_("import", str(path), "--storage", storage)
    again = doteval_("import", str(path), "--storage", storage)
    assert (again.code, again.out) == (2, "")
    assert f"{path}: it was imported before, as log::inspect-ai::questions" in again.err
    assert "Give another name with --name, or delete that one first: doteval delete log" in again.err
    # A directory to which logs are added is imported again and again.
    write_eval(tmp_path / "more.eval", inspect_log())
    (tmp_path / "package.json").write_text("{}")
    ran = doteval_("import", str(tmp_path), "--storage", storage)
    assert ran.code == 0
    assert "more.eval: imported as more::" in ran.out
    assert f"1 log was imported before: {path}" in ran.err
    assert "1 other file is no log that doteval knows" in ran.err


def test_several_logs_in_one_experiment(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    logs = [inspect_log() for _ in range(3)]
    logs[1]["eval"]["model"] = "other/model"
    logs[2]["eval"]["model"] = "other/model"
    for number, log in enumerate(logs):
        write_eval(tmp_path / f"{number}.eval", log)
    ran = doteval_("import", str(tmp_path), "--name", "all", "--storage", storage)
    assert ran.code == 2
    assert "0.eval: imported as all::inspect-ai::questions " in ran.out
    assert "1.eval: imported as all::inspect-ai::questions[other/model] " in ran.out
    assert "2.eval: the experiment 'all' has inspect-ai::questions[other/model] already, imported from" in ran.err
    with Store.open(storage) as store:
        add_experiment(store, "run", {"right": [True]})
    refused = doteval_("import", str(tmp_path / "0.eval"), "--name", "run", "--storage", storage)
    assert "the experiment 'run' was run here, and holds no imported results" in refused.err


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"status": "started"}, "cancelled", "it had not ended when it was imported: started"),
        ({"status": "cancelled"}, "cancelled", "it was cancelled in inspect-ai"),
        ({"status": "error", "error": {"message": "X('y')"}}, "failed", "inspect-ai ended it with an error: X('y')"),
        ({"samples": "fewer"}, "cancelled", "the log lacks 2 results"),
    ],
)
def test_an_unfinished_log_is_never_complete(
    doteval_: CommandLine, storage: str, tmp_path: Path, change: dict[str, Any], status: str, reason: str
) -> None:
    log = inspect_log()
    log["samples"] = [sample for sample in log["samples"] if sample["id"] != 2]
    head = "_journal/start.json" if change.get("status") == "started" else "header.json"
    write_eval(tmp_path / "log.eval", log if "samples" in change else log | change, head=head)
    doteval_("import", str(tmp_path / "log.eval"), "--storage", storage)
    (evaluation,) = json.loads(doteval_("show", "log", "--storage", storage, "--json").out)["evaluations"]
    assert (evaluation["status"], evaluation["reason"]) == (status, reason)
    assert (evaluation["rows"]["total"], evaluation["rows"]["pending"], evaluation["dataset"]) == (6, 2, None)
    said = doteval_("status", "log", "--storage", storage).out
    assert "2 results missing in the log that was imported" in said
    assert "doteval retry" not in said


def test_broken_files_keep_back_no_other(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    whole = write_eval(logs / "whole.eval", inspect_log()).read_bytes()
    (logs / "cut.eval").write_bytes(whole[:-200])
    (logs / "cut.json").write_text(json.dumps(inspect_log())[:500])
    damaged = bytearray(whole)
    # Within the first sample, behind the header of the member.
    damaged[100:140] = bytes(40)
    (logs / "damaged.eval").write_bytes(damaged)
    write_json(logs / "newer.json", inspect_log() | {"version": 3})
    write_json(logs / "none.json", inspect_log() | {"samples": []})
    (logs / "text.eval").write_text("text")
    write_dotevals(logs, "stored", [*dotevals_lines(), {"no": "item"}])
    ran = doteval_("import", str(logs), "--storage", storage)
    assert ran.code == 2
    assert "whole.eval: imported as whole::" in ran.out
    assert f"Error: {logs}/cut.eval is not a whole zip file" in ran.err
    assert f"Error: {logs}/cut.json is not JSON" in ran.err
    assert f"Error: {logs}/damaged.eval cannot be unpacked" in ran.err
    assert f"Error: {logs}/newer.json has version 3 of inspect-ai's format" in ran.err
    assert f"Error: {logs}/none.json holds no samples" in ran.err
    assert f"Error: {logs}/text.eval is not a whole zip file" in ran.err
    assert "eval_stored[None-None].jsonl, line 6: it has no item_id" in ran.err
    assert "Traceback" not in ran.err
    with Store.open(storage) as store:
        assert [each.experiment.name for each in store.experiments.overviews()] == ["whole"]


def test_what_a_killed_import_left_is_replaced(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    path = write_eval(tmp_path / "log.eval", inspect_log())
    doteval_("import", str(path), "--storage", storage)
    with Store.open(storage) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("log"))
        doteval_("delete", "log", "--yes", "--storage", storage)
        left = store.evaluations.by_uid(store.imports.begin("log", evaluation.spec, epochs=2, began_at=None))
        row = Row(0, "another", {"x": 1})
        store.rows.add(left.id, [row])
        store.results.write([NewResult(left.id, row, Outcome(RowStatus.DONE, 0.0, 0.0))], None)
        assert left.status is EvaluationStatus.RUNNING
    assert "the same `doteval import` replaces what it left" in doteval_("status", "log", "--storage", storage).out
    ran = doteval_("import", str(path), "--storage", storage)
    assert ran.code == 0
    assert [record.row.key for record in records(storage, "log")] == list("112233")


def test_dry_run_and_json(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    write_eval(tmp_path / "log.eval", inspect_log())
    (tmp_path / "other.json").write_text("[]")
    ran = doteval_("import", str(tmp_path), "--dry-run", "--json", "--storage", storage)
    document = json.loads(ran.out)
    assert (ran.code, document["storage"]) == (0, None)
    assert not Path(storage).exists()
    assert document["files"][0] == {
        "file": str(tmp_path / "log.eval"),
        "status": "would be imported",
        "experiment": "log",
        "evaluation": "inspect-ai::questions",
        "tool": "inspect-ai 0.3.285",
        "model": "mockllm/model",
        "ended": "completed",
        "rows": 3,
        "results": 6,
        "failed": 1,
        "missing": 0,
        "remarks": {"events of samples left out": 6, "samples without a value of sometimes": 2},
        "notes": [],
        "message": None,
        "remedy": None,
    }
    assert document["files"][1]["status"] == "no log"
    assert "would be imported as log" in doteval_("import", str(tmp_path), "--dry-run", "--storage", storage).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.eval",), "there is no file missing.eval"),
        (("empty",), "there are no logs below empty"),
        (("rows.jsonl",), "rows.jsonl is no log that doteval knows"),
        (("text.txt",), "text.txt is no log that doteval knows"),
        (("rows.jsonl", "--score", "scor"), "rows.jsonl, row 1: it has no column 'scor'"),
        (("rows.jsonl", "--score", "score", "--key", "same"), "rows.jsonl: rows 1 and 2 have the same same"),
        (("rows.jsonl", "--score", "list"), "rows.jsonl, row 1: the score list is 2 values, not one"),
        (("rows.jsonl", "--key", "same"), "name a score with --score"),
        (("rows.jsonl", "--score", "score", "--name", " "), "it is empty"),
        (("bad.csv", "--score", "a"), "bad.csv, line 2: 1 cell, but the header names 2 columns"),
        (("none.jsonl", "--score", "a"), "none.jsonl has no rows"),
    ],
)
def test_refusals(
    doteval_: CommandLine,
    storage: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "bad.csv").write_text("a,b\n1\n")
    (tmp_path / "none.jsonl").write_text("")
    (tmp_path / "rows.jsonl").write_text(
        '{"score": 1, "same": 1, "list": [1, 2]}\n{"score": 2, "same": 1, "list": 1}\n'
    )
    ran = doteval_("import", *arguments, "--storage", storage)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert "Traceback" not in ran.err
