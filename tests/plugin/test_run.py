"""`run`: evaluations in scripts and notebooks, without pytest and without a broker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from doteval import Result, Score, batch, foreach, run
from doteval.core.results import RowStatus
from doteval.errors import ChangedError, DatasetError, UsageError
from doteval.evaluators import exact_match

ROWS = [("2+2", "4"), ("3+3", "6"), ("1+1", "3")]


class Model:
    def __init__(self) -> None:
        self.calls = 0

    def solve(self, question: str) -> str:
        self.calls += 1
        return str(eval(question))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_results_are_a_sequence_of_records_with_a_summary(capfd: pytest.CaptureFixture[str]) -> None:
    @foreach("question, answer", ROWS)
    def eval_math(question: str, answer: str, model: Model) -> Result:
        return Result(exact_match(model.solve(question), answer), prompt=question)

    model = Model()
    results = run(eval_math, model=model)
    assert model.calls == 3
    assert len(results) == 3
    assert [record.outcome.prompt for record in results] == ["2+2", "3+3", "1+1"]
    assert results[0].row.values == {"question": "2+2", "answer": "4"}
    assert results[-1].outcome.scores[0].value is False
    assert [record.row.index for record in results[1:]] == [1, 2]
    assert results.summary()["exact_match"]["accuracy"] == pytest.approx(2 / 3)
    # As in doteval 0.22.
    assert results.summary()["metrics"] == {"exact_match": {"accuracy": pytest.approx(2 / 3)}}
    assert (results.summary()["total"], results.summary()["errors"]) == (3, 0)
    assert "exact_match.accuracy 0.667" in repr(results)
    assert Path(".doteval", "doteval.db").is_file()
    assert capfd.readouterr() == ("", "")


def test_the_same_name_resumes_and_runs_failed_rows_again() -> None:
    broken = True
    seen: list[str] = []

    @foreach("question, answer", lambda: iter(ROWS))
    def eval_math(question: str, answer: str) -> Score:
        seen.append(question)
        if broken and question == "3+3":
            raise LookupError("no answer")
        return Score("ok", True, ["accuracy"])

    first = run(eval_math, experiment="math", samples=2)
    assert first[1].outcome.status is RowStatus.FAILED
    assert first.counts.failed == 1
    assert first.summary()["ok"]["accuracy"] == 0.5
    broken = False
    second = run(eval_math, experiment="math")
    assert seen == ["2+2", "3+3", "3+3", "1+1"]
    assert (second.experiment, second.evaluation, len(second)) == ("math", first.evaluation, 3)
    assert second.summary()["ok"]["accuracy"] == 1.0
    assert run(eval_math).experiment != run(eval_math).experiment


def test_async_rows_overlap_even_inside_a_running_loop() -> None:
    in_flight, peak = 0, 0
    threads = set(threading.enumerate())

    @foreach("i", range(20))
    async def eval_async(i: int, step: float) -> Score:
        nonlocal in_flight, peak
        in_flight += 1
        peak = max(peak, in_flight)
        await asyncio.sleep(step)
        in_flight -= 1
        return Score("ok", i >= 0, ["accuracy"])

    async def notebook() -> Any:
        return run(eval_async, concurrency=4, step=0.005)

    assert asyncio.run(notebook()).summary()["ok"]["accuracy"] == 1.0
    assert peak == 4
    left = set(threading.enumerate()) - threads
    assert not [thread for thread in left if thread.name.startswith("doteval")]


def test_batches_epochs_and_defaults() -> None:
    sizes = []

    @batch("texts", ["a", "b", "c"], batch_size=2)
    def eval_batch(texts: list[str], scale: int = 2) -> list[Score]:
        sizes.append(len(texts))
        return [Score("length", len(text) * scale, ["mean"]) for text in texts]

    results = run(eval_batch, epochs=2)
    assert sizes == [2, 2, 2]
    assert sorted((record.row.index, record.row.sample) for record in results) == [
        (i, s) for i in range(3) for s in (0, 1)
    ]
    assert results.summary()["length"]["mean"] == 2.0
    assert run(eval_batch, scale=3).summary()["length"]["mean"] == 3.0


def test_missing_and_unknown_fixtures_are_errors() -> None:
    @foreach("i", [1])
    def eval_it(i: int, model: Model) -> Score:
        return Score("ok", True)

    with pytest.raises(UsageError, match="eval_it needs model"):
        run(eval_it)
    with pytest.raises(UsageError, match="eval_it needs model and has no parameter modle"):
        run(eval_it, modle=Model())
    with pytest.raises(UsageError, match="eval_it has no parameter modle"):
        run(eval_it, model=Model(), modle=Model())
    with pytest.raises(UsageError, match="test_missing_and_unknown_fixtures_are_errors is not an evaluation"):
        run(test_missing_and_unknown_fixtures_are_errors)
    with pytest.raises(UsageError, match="samples must be at least 1, not 0"):
        run(eval_it, samples=0, model=Model())
    with pytest.raises(DatasetError, match="empty"):
        run(foreach("i", [])(lambda i: Score("ok", True)))


def test_a_changed_function_is_refused() -> None:
    def define(value: bool) -> Any:
        source = f"def eval_it(i):\n    return Score('ok', {value}, ['accuracy'])"
        scope: dict[str, Any] = {"Score": Score}
        exec(source, scope)
        return foreach("i", [1, 2])(scope["eval_it"])

    run(define(True), experiment="e")
    assert run(define(True), experiment="e").summary()["ok"]["accuracy"] == 1.0
    with pytest.raises(ChangedError, match="allow_changed=True"):
        run(define(False), experiment="e")
    run(define(False), experiment="e", allow_changed=True)


def test_a_notebook(tmp_path: Path) -> None:
    # Imported here, and not by every xdist worker at its start.
    import nbclient
    import nbformat

    cells = [
        """
import asyncio
import json
import subprocess
import sys
from doteval import foreach, run
from doteval.evaluators import exact_match

assert asyncio.get_running_loop().is_running()

@foreach("question,answer", [("a", "a"), ("b", "c")])
async def eval_async(question, answer, model):
    await asyncio.sleep(0.001)
    return exact_match(model(question), answer)

@foreach("text", "texts.jsonl")
def eval_sync(text):
    return exact_match(text, text)
""",
        "results = run(eval_async, experiment='n', model=str)\nresults.summary()['exact_match']['accuracy']",
        "[record.outcome.scores[0].value for record in results]",
        "await asyncio.sleep(0)\nrun(eval_sync)",
        "again = run(eval_async, experiment='n', model=None)\nlen(again)",
        "run(eval_async)",
        "run(foreach('n', lambda: (_ for _ in [1 / 0]))(lambda n: n))",
    ]
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    for cell in notebook.cells[-2:]:
        cell.metadata["tags"] = ["raises-exception"]
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()

    def shown(cell: int) -> str:
        return str(notebook.cells[cell].outputs[-1]["data"]["text/plain"])

    assert shown(1) == "0.5"
    assert shown(2) == "[True, False]"
    assert "eval_sync" in shown(3)
    assert "exact_match.accuracy 1.000, 2 rows, 0 errors" in shown(3)
    # All rows were done, so the model, which cannot be called, was not called.
    assert shown(4) == "2"
    # The message says what to do, and no frames of doteval hide it. Those of the author's own error are shown.
    assert notebook.cells[5].outputs[-1]["traceback"] == [
        "UsageError: eval_async needs model",
        "Give its fixtures by name: run(eval_fn, model=my_model).",
    ]
    own = "\n".join(notebook.cells[6].outputs[-1]["traceback"])
    assert own.startswith("DatasetError: the dataset function <lambda> raised ZeroDivisionError")
    assert "1 / 0" in own
    assert "doteval/local" not in own


def test_the_samples_of_a_row_become_one_score() -> None:
    answers = iter([True, False, True, False, False, True])

    @foreach("i", [0, 1])
    def eval_votes(i: int) -> Score:
        return Score("right", next(answers), ["accuracy"])

    voted = run(eval_votes, experiment="votes", epochs=3, reducer="mode")
    assert [voted.summary()["right"]["accuracy"], len(voted)] == [0.5, 6]
    with pytest.raises(UsageError, match="no reducer 'vote'"):
        run(eval_votes, reducer="vote")
    shown = subprocess.run(
        [sys.executable, "-m", "doteval", "recompute", "votes", "--reducer", "max"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "right accuracy: max of the samples of each row" in shown.stdout
    document = subprocess.run(
        [sys.executable, "-m", "doteval", "show", "votes", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(document.stdout)["evaluations"][0]["scores"][0]["metrics"][0]["value"] == 1.0
