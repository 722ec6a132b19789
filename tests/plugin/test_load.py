"""`load`: stored results in scripts, as records, tables and data frames."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import doteval
from doteval import Result, Score, foreach, load, run
from doteval.errors import NotFoundError, UsageError

ROWS = [("2+2", "4", 1), ("3+3", "6", 2), ("1+1", "3", 3), ("", "0", 4)]


def _define() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The evaluations. Those of a module would be collected by pytest."""

    @foreach("question,answer,level", ROWS)
    def eval_math(question: str, answer: str, level: int) -> Result:
        found = str(eval(question))
        return Result(
            Score("right", found == answer, ["accuracy"]),
            Score("length", len(found) / 2, ["mean"]),
            model_response=found,
        )

    @foreach("text", ["<b>", "b"])
    def eval_text(text: str) -> Score:
        return Score("is_<b>", text == "<b>", ["accuracy"])

    return eval_math, eval_text


MATH, TEXT = _define()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(MATH, experiment="nightly")
    run(TEXT, experiment="nightly")


def test_records_of_all_evaluations() -> None:
    results = load("nightly")
    math, text = results.evaluations
    assert [math.rpartition("::")[2], text.rpartition("::")[2]] == ["eval_math", "eval_text"]
    assert len(results) == len(list(results)) == 6
    assert [record.row.values.get("question") for record in results][:4] == ["2+2", "3+3", "1+1", ""]
    assert [record.error for record in results if record.error] == ["invalid syntax (<string>, line 0)"]
    assert results.summaries()[math]["right"]["accuracy"] == pytest.approx(2 / 4)
    assert repr(results).startswith("<6 results of 'nightly': ")


def test_one_evaluation() -> None:
    assert len(load("nightly", "eval_text")) == len(load("nightly")["eval_text"]) == 2
    with pytest.raises(NotFoundError, match="is not among these results"):
        load("nightly", "eval_text")["eval_math"]


@pytest.mark.parametrize(
    ("names", "problem"),
    [(("weekly",), "'weekly'"), (("nightly", "eval_nothing"), "no evaluation of the experiment 'nightly' contains")],
)
def test_what_is_not_there(names: tuple[str, ...], problem: str) -> None:
    with pytest.raises(NotFoundError, match=problem):
        load(*names)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no result store"):
        load("nightly", storage=str(tmp_path / "none.db"))


def test_data_frames() -> None:
    results = load("nightly", "eval_math")
    frame = results.to_pandas()
    assert list(frame["score.right"]) == [True, True, False, None]
    assert frame["row.level"].tolist() == [1, 2, 3, 4]
    assert frame["score.length"].mean() == pytest.approx(0.5)
    assert str(frame["started_at"].dtype) == "datetime64[us, UTC]"
    other = results.to_polars()
    assert other["row.level"].sum() == 10
    assert other.columns == list(frame.columns)
    assert results.to_arrow().num_rows == 4


def test_what_run_returns_is_a_table_too() -> None:
    results = run(MATH, experiment="nightly")
    assert results.to_pandas()["response"].tolist() == ["4", "6", "2", pytest.approx(float("nan"), nan_ok=True)]
    assert ">accuracy</td>" in results._repr_html_()


def test_a_filter() -> None:
    wrong = load("nightly", where="score.right = 0 or row.text ~ '<'")
    assert [record.row.index for record in wrong] == [2, 0]
    assert len(wrong) == len(wrong.to_pandas()) == 2
    assert repr(wrong).startswith("<2 results of 'nightly' where score.right = 0 or row.text ~ '<': ")
    assert "The metrics are those of all results" in wrong._repr_html_()
    with pytest.raises(UsageError, match="colour"):
        load("nightly", where="colour = 1")


def test_html_holds_no_markup_of_names() -> None:
    page = load("nightly")._repr_html_()
    assert "is_&lt;b&gt;" in page
    assert "<b>" not in page
    cells = re.findall("<td[^>]*>(.*?)</td>", page)
    assert ["0.500", "0.095 – 0.905", "Wilson", "2", "0"] in [cells[place : place + 5] for place in range(len(cells))]


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for method in ("to_pandas", "to_polars"):
        with pytest.raises(UsageError, match=r"which is not installed") as raised:
            getattr(load("nightly"), method)()
        assert raised.value.remedy == f"Install it: pip install {method[3:]}"


def test_a_script() -> None:
    script = "import doteval, json; print(json.dumps([r.row.index for r in doteval.load('nightly', 'math')]))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == [0, 1, 2, 3]
    assert "load" in doteval.__all__
