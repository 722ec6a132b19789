"""One figure is written alike by everything that shows it."""

from __future__ import annotations

import os

import pytest

import doteval
from tests.plugin.conftest import Evaluate
from tests.support.commands import Commands

ROWS = """
@foreach("i", [(i,) for i in range(12)])
def eval_rows(i):
    if i == 11:
        raise RuntimeError("one row fails")
    return Score("right", i % 4 == 0, ["accuracy"])
"""


def test_the_value_and_its_interval_are_the_same_text_everywhere(
    pytester: pytest.Pytester, evaluate: Evaluate, commands: Commands
) -> None:
    def doteval_(*arguments: str) -> str:
        environment = {**os.environ, "COLUMNS": "160"}
        done = commands.run("doteval", arguments, directory=pytester.path, environment=environment, timeout=60)
        return done.stdout + done.stderr

    def shown(text: str) -> list[str]:
        """The value, the interval and the figure without errors, wherever they stand in a text."""
        return [each for each in ("0.250", "0.089 – 0.532", "0.273") if each in " ".join(text.split())]

    every = ["0.250", "0.089 – 0.532", "0.273"]
    under_pytest = evaluate(ROWS, "--fail-under", "right.accuracy=0.9").stdout.str()
    assert shown(under_pytest) == every
    assert "right.accuracy is 0.250, under 0.9 (n 12, 95% interval 0.089 – 0.532)" in under_pytest
    assert shown(doteval_("show", "x")) == every
    submitted = doteval_("submit", "eval_it.py", "--experiment", "y", "--workers", "1", "--max-retries", "0")
    assert shown(submitted) == every
    for others in (("report", "x", "--format", "markdown", "-o", "-"), ("history", "right.accuracy")):
        assert shown(doteval_(*others))[:2] == every[:2]
    assert "0.250 → 0.250" in doteval_("compare", "x", "y")
    assert shown(doteval.load("x", storage=".doteval/doteval.db")._repr_html_())[:2] == every[:2]
