"""What four people do with doteval first: an engineer, a user of dotevals, an operator, and a user of notebooks."""

from __future__ import annotations

import csv
import json
import re
import signal
import sys
from pathlib import Path

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.foreign_logs import dotevals_lines
from tests.support.project import Project, wait_until

pytestmark = pytest.mark.slow("tests/plugin/test_project_templates.py, test_submit.py and test_worker_service.py")


def test_an_engineer_begins_with_a_template(project: Project, mock_openai: MockOpenAI) -> None:
    """A bug in a new project is found and mended, a change is compared, and a threshold fails CI."""
    project.run("init", "evals")
    project.path /= "evals"
    with project.started(program=["make", "try", f"PYTHON={sys.executable}"]) as trying:
        assert trying.wait(120) == 0, project.output()
    shown = re.search(r"To see them: doteval show (\S+) --full", project.output())
    assert shown
    tried = shown[1]
    assert "It broke after a week and nobody answered my mails." in project.run("show", tried, "--wrong").stdout

    # The mock server of the first command is gone.
    project.environment |= {"OPENAI_BASE_URL": mock_openai.base_url, "OPENAI_API_KEY": "any"}
    file = project.path / "eval_reviews.py"
    written = file.read_text(encoding="utf-8")
    file.write_text(written.replace("answer.strip()", "anwser.strip()"), encoding="utf-8")
    failed = project.run("submit", ".", "--experiment", "second")
    assert "8 of 8 rows failed" in failed.stdout + failed.stderr
    shown = project.run("show", "second", "--row", "0").stdout
    assert "NameError: name 'anwser' is not defined" in shown
    assert "eval_reviews.py" in shown

    file.write_text(written, encoding="utf-8")
    refused = project.run("submit", ".", "--experiment", "second", check=2)
    assert "--allow-changed" in refused.stderr
    project.run("submit", ".", "--experiment", "second", "--allow-changed")
    # The template's cache keeps replies that were paid for: a mistake in the code does not make them doubtful.
    assert mock_openai.stats()["requests"] == 8

    compared = project.run("compare", tried, "second").stdout
    assert "NO DIFFERENCE SEEN" in compared
    again = ("submit", ".", "--experiment", "second", "--fail-under")
    assert "0.875" in project.run(*again, "exact_match.accuracy=0.99", check=1).stdout
    project.run(*again, "exact_match.accuracy=0.5")
    project.run("export", "second", "second.csv")
    with (project.path / "second.csv").open(newline="", encoding="utf-8") as exported:
        assert len(list(csv.DictReader(exported))) == 8


DOTEVALS_FILE = """
import pytest
from dotevals import Result, foreach
from dotevals.evaluators import evaluator, exact_match
from dotevals.metrics import accuracy

@evaluator(metrics=[accuracy()])
def is_short(response):
    return len(response) < 20

@pytest.fixture(scope="session")
def model():
    return {"2 + 2": "4", "3 * 3": "10"}

@foreach("question,answer", [("2 + 2", "4"), ("3 * 3", "9")])
def eval_sums(question, answer, model):
    response = model[question]
    return Result(exact_match(response, answer), is_short(response), prompt=question, model_response=response)
"""


def test_a_user_of_dotevals_renames_the_package(project: Project) -> None:
    """Old files run after the sed of docs/coming-from-other-tools.md, and old results are read beside the new."""
    page = Path(__file__).parents[2] / "docs" / "coming-from-other-tools.md"
    assert "sed -i 's/dotevals/doteval/g'" in page.read_text(encoding="utf-8")
    (project.path / "eval_sums.py").write_text(DOTEVALS_FILE.replace("dotevals", "doteval"), encoding="utf-8")
    with project.started("eval_sums.py", "--experiment", "here", module="pytest") as here:
        assert here.wait(120) == 0, project.output()
    project.run("submit", "eval_sums.py", "--experiment", "there")
    for name in ("here", "there"):
        (evaluation,) = project.json("show", name)["evaluations"]
        values = {score["name"]: score["metrics"][0]["value"] for score in evaluation["scores"]}
        assert values == {"exact_match": 0.5, "is_short": 1}

    old = project.path / "old" / "sums"
    old.mkdir(parents=True)
    lines = dotevals_lines(nested=True)
    (old / "eval_stored.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    imported = project.run("import", "old").stdout
    assert "sums" in imported
    assert {each["name"] for each in project.json("list")["experiments"]} == {"here", "there", "sums"}


OPERATED = """
import asyncio
import os
import pytest
from doteval import foreach
from doteval.evaluators import exact_match

@pytest.fixture(scope="session")
def model():
    tell("load")
    return str.upper

@foreach("text", [(f"text {number}",) for number in range(200)])
async def eval_upper(text, model):
    await asyncio.sleep(0.05)
    # The second half waits for the test.
    while int(text.split()[1]) >= 100 and not os.path.exists("go"):
        await asyncio.sleep(0.02)
    tell(text)
    return exact_match(model(text), text.upper())
"""


def test_an_operator_runs_a_service(project: Project, redis_url: str) -> None:
    """Two services, of which one is killed and one ends; each row has one result, in the store and in its copies."""
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_upper.py", OPERATED)
    assert "doteval worker PATH" in project.run("doctor", check=1).stdout
    with project.started("worker", ".", "--processes", "1") as first, project.started("worker", ".") as second:
        wait_until(lambda: sum(each.state == "ready" for each in project.workers()) >= 2, what="two worker processes")
        project.run("submit", ".", "--experiment", "nightly", "--detach")
        wait_until(lambda: project.done() >= 20, what="20 results")
        assert project.json("status", "nightly")["evaluations"][0]["status"] == "running"
        first.send_signal(signal.SIGKILL)
        project.write("go", "")
        project.run("watch", "nightly")
        second.send_signal(signal.SIGTERM)
        assert second.wait(120) == 0
    shown = project.json("show", "nightly")["evaluations"][0]
    assert (shown["status"], shown["rows"]["done"], shown["rows"]["failed"]) == ("completed", 200, 0)
    assert {f"text {number}" for number in range(200)} <= set(project.counts())
    project.run("db", "backup", "backup.db")
    project.run("db", "copy", ".doteval/doteval.db", "copied.db")
    for name in ("backup.db", "copied.db"):
        assert project.json("show", "nightly", "--storage", name)["evaluations"][0] == shown


NOTEBOOK = [
    """
import asyncio
from doteval import foreach, load, run
from doteval.evaluators import exact_match

@foreach("question,answer", [("a", "A"), ("b", "B"), ("c", "x")])
async def eval_upper(question, answer, model):
    await asyncio.sleep(0.001)
    return exact_match(model(question), answer)
""",
    "results = run(eval_upper, experiment='upper', model=str.upper)\nresults.summary()['exact_match']['accuracy']",
    "frame = load('upper').to_pandas()\nlen(frame), sorted(frame['row.question'])",
    "int(frame['score.exact_match'].sum())",
    "run(eval_upper, experiment='upper', model=None)",
]


def test_a_user_of_notebooks_runs_a_cell(project: Project) -> None:
    """An evaluation runs in a kernel whose event loop runs, and its results are a data frame."""
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in NOTEBOOK])
    resources = {"metadata": {"path": str(project.path)}}
    nbclient.NotebookClient(notebook, timeout=180, resources=resources).execute()
    shown = [cell.outputs[-1]["data"]["text/plain"] for cell in notebook.cells[1:]]
    assert shown[:3] == ["0.6666666666666666", "(3, ['a', 'b', 'c'])", "2"]
    assert "exact_match.accuracy 0.667, 3 rows, 0 errors" in shown[3]
