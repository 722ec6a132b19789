"""A part of a page that cannot be computed: it says why, and the rest of the page is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from doteval.errors import StoreTimeoutError
from doteval.view.parameters import link
from tests.support.project import wait_until
from tests.support.view import client

EVALUATION = "evals/eval_qa.py::eval_qa"


@pytest.mark.parametrize(
    ("function", "path", "rest"),
    [
        ("pages.charts.read_figures", link("charts", experiment="base"), "Charts of"),
        ("pages.compare.compare_targets", link("compare", a="base", b="new"), 'name="a" value="base"'),
        ("row_choice._flipped", link("rows", experiment="new", against="base"), 'name="where"'),
        ("pages.experiment._matrix", link("experiment", name="base"), "eval_qa"),
    ],
)
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreTimeoutError("the store took too long"), "The store took too long"),
        (ZeroDivisionError("a row's content"), "ZeroDivisionError in "),
    ],
)
def test_a_part_that_fails_says_so(
    viewed: Path, monkeypatch: pytest.MonkeyPatch, function: str, path: str, rest: str, error: Exception, said: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(f"doteval.view.{function}", fail)
    with client(viewed) as view:

        def computed() -> str | None:
            """The page when no part is awaited any more: other parts may take longer than the one that fails."""
            text = view.get(f"/{path}").text
            return text if said in text and 'class="computing"' not in text else None

        page = wait_until(computed)
        assert view.get(f"/{path}").status_code == 200
        assert rest in page
        assert "a row&#39;s content" not in page
