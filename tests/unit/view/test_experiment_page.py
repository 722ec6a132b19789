"""The page of one experiment."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from doteval.view.parameters import link
from tests.support.project import wait_until
from tests.support.view_stores import HOSTILE


def shown(view: TestClient, **parameters: str) -> str:
    answer = view.get("/" + link("experiment", **parameters))
    assert answer.status_code == 200, answer.text
    return answer.text


def test_it_shows_evaluations_with_their_figures(view: TestClient) -> None:
    page = shown(view, name="base")
    assert "<b>0.750</b>" in page
    assert "2 of 40 rows failed (5.0%)" not in page
    assert (
        link("rows", experiment="base", evaluation="evals/eval_qa.py::eval_qa", show="failed").replace("&", "&amp;")
        in page
    )
    assert "ValueError" in page
    assert "doteval show base --storage" in page
    assert "gpt-small" in page
    assert "else by genai-prices" in page


def test_a_running_one_is_live_and_names_the_commands_to_follow_it(view: TestClient) -> None:
    page = shown(view, name="running")
    assert 'data-live-seconds="2"' in page or 'data-live-seconds="1"' in page
    assert "3/10" in page
    assert "doteval watch running" in page
    # Of three rows, all are right.
    page = wait_until(lambda: with_figures(view), seconds=60)
    assert "<b>1.000</b>" in page
    assert "Nobody runs it" in page


def with_figures(view: TestClient) -> str | None:
    page = shown(view, name="running")
    return page if "so far" in page else None


def test_an_empty_one_names_the_next_command(view: TestClient) -> None:
    assert "doteval submit eval_x.py --experiment empty" in shown(view, name="empty")


def test_names_of_evaluations_and_scores_are_text(view: TestClient) -> None:
    page = shown(view, name=HOSTILE)
    assert "<script>document" not in page
    assert "\x00" not in page
    assert "\u202e" not in page
    assert len(page) < 200_000


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 400, "lacks the parameter"),
        ("name=nothing", 404, "there is no experiment named"),
        ("name=bas", 404, "Did you mean"),
        ("name=base&sort=x", 400, "sort in the URL"),
        ("name=base&name=new", 400, "2 times"),
        ("name=%00", 404, "there is no experiment"),
        ("name=%ed%a0%80", 404, "there is no experiment"),
        ("name=base&status=x", 400, "status in the URL"),
        ("name=base&search=%25%5f%27%22", 200, "matches"),
    ],
)
def test_what_cannot_be_shown_is_explained(view: TestClient, query: str, status: int, says: str) -> None:
    answer = view.get(f"/experiment?{query}")
    assert answer.status_code == status
    assert says.lower() in answer.text.lower()
