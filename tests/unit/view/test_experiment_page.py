"""The page of one experiment."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from doteval.store import Store
from doteval.view.parameters import link
from tests.support.comparisons import add_experiment
from tests.support.project import wait_until
from tests.support.view import client
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
    page = wait_until(lambda: with_figures(view))
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


def test_parameters_with_dashes_are_the_lines_and_columns_of_a_matrix(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    models, styles = ("gpt-4o", "gpt-4o-mini", "mistral-small"), ("plain", "very-polite")
    with Store.open(str(path)) as store:
        for model, style in itertools.product(models, styles):
            found = add_experiment(store, "params", {"match": [True, False]}, name=f"eval_sums[{style}-{model}]")
            store.summaries.write(found, [store.summary(found)])
    with client(path) as view:
        matrix = shown(view, name="params").partition('id="matrix-title"')[2].partition("</table>")[0]
    assert "match accuracy" in matrix.partition("</h2>")[0]
    assert re.findall(r"<bdi>([\w-]+)</bdi></th>", matrix) == [*models, *styles]
    assert matrix.count(">0.500</a>") == len(models) * len(styles)


def test_models_without_a_price_are_named(view: TestClient, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with Store.open(str(path)) as store:
        add_experiment(store, "unpriced", {"match": [True]}, model="nobody-knows", cost=None)
    with client(path) as other:
        page = wait_until(lambda: once_computed(other, "unpriced"), seconds=60)
    assert "No price is known for <bdi>nobody-knows</bdi>" in page
    assert "No price is known" not in wait_until(lambda: once_computed(view, "base"), seconds=60)


def once_computed(view: TestClient, name: str) -> str | None:
    page = shown(view, name=name)
    return None if 'class="computing"' in page else page
