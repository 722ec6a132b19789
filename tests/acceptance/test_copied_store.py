"""Experiments go on in a copy of their store: resumed, retried and rescored, without paying a call again."""

from __future__ import annotations

import re

from doteval.mock_openai import MockOpenAI
from tests.support.project import Project

ROWS = 20

EVALUATION = """
from pathlib import Path
from doteval import Score, foreach

@foreach("number", [(number,) for number in range({rows})])
def eval_it(number, openai_client):
    openai_client.chat.completions.create(model="m", messages=[{{"role": "user", "content": f"number {{number}}"}}])
    if number in (3, 7) and not Path("mended").exists():
        raise KeyError("not yet")
    return Score("ok", number % {every} == 0, ["accuracy"])
"""


def test_an_experiment_goes_on_in_a_copy(project: Project, postgres_url: str) -> None:
    project.write("eval_it.py", EVALUATION.format(rows=ROWS, every=2))
    with MockOpenAI() as mock:
        project.environment |= {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "key"}
        project.run("submit", "eval_it.py", "--experiment", "first", "--samples", str(ROWS // 2), "--workers", "1")
        said = project.run("show", "first", "--full", "--json").stdout
        project.run("db", "copy", ".doteval/doteval.db", postgres_url)
        (project.path / ".doteval" / "doteval.db").rename(project.path / "old.db")
        project.environment["DOTEVAL_STORAGE"] = postgres_url
        assert without_storage(project.run("show", "first", "--full", "--json").stdout) == without_storage(said)

        (project.path / "mended").touch()
        project.run("retry", "first", "--workers", "1")
        project.run("submit", "eval_it.py", "--experiment", "first", "--workers", "1", "--allow-changed")
        (first,) = project.json("show", "first")["evaluations"]
        assert (first["rows"]["done"], first["rows"]["failed"]) == (ROWS, 0)
        asked = mock.stats()["requests"]
        # Each row once, and those that had failed once more.
        assert asked == ROWS + 2

        project.write("eval_it.py", EVALUATION.format(rows=ROWS, every=4))
        project.run("rescore", "first", "--as", "second", "--workers", "1")
        assert mock.stats()["requests"] == asked
    (second,) = project.json("show", "second")["evaluations"]
    assert second["rows"]["done"] == ROWS
    assert second["scores"][0]["metrics"][0]["value"] == 5 / ROWS


def without_storage(document: str) -> str:
    return re.sub(r'"storage": .*', "", document)
