"""The list of experiments."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from doteval.store import Store
from doteval.view.parameters import link
from tests.support.view import client
from tests.support.view_stores import HOSTILE


def test_it_shows_progress_and_scores_with_their_intervals(view: TestClient) -> None:
    page = view.get("/").text
    assert "20/40" not in page
    assert "40/40" in page
    assert "3/10" in page
    # 30 of 40 are right; 2 have failed, which count as false.
    assert "<b>0.750</b>" in page
    assert "0.598 – 0.858" in page
    assert 'data-live-seconds="2"' in page


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"search": "prompt of the"}, ["new"]),
        ({"tag": "paper"}, ["new"]),
        ({"status": "running"}, ["running"]),
        ({"search": "nothing like this"}, []),
        ({"since": "2999-01-01"}, []),
        ({"search": "e", "sort": "name"}, ["base", "empty", "new"]),
    ],
)
def test_experiments_are_found(view: TestClient, query: dict[str, str], names: list[str]) -> None:
    page = view.get("/", params=query).text
    found = [name for name in ("base", "empty", "new", "running") if f'href="{link("experiment", name=name)}"' in page]
    assert set(names) <= set(found)
    assert "running" not in found or "running" in names or "search" in query
    if not names:
        assert "None of the 5 experiments matches" in page


def test_the_url_sorts_the_list(view: TestClient) -> None:
    page = view.get("/?sort=name").text
    places = [page.index(f'href="{link("experiment", name=name)}"') for name in ("base", "empty", "new", "running")]
    assert places == sorted(places)
    assert 'aria-sort="ascending"' in page
    assert link(".", sort="-name") in page


@pytest.mark.parametrize(
    "query",
    [
        "sort=x",
        "page=0",
        "page=-1",
        "page=1.5",
        "page=99999999999999999999",
        "page=²",
        "status=x",
        "since=x",
        "page=1&page=2",
        "unknown=1",
        "search=%ff",
        "search=" + "x" * 20_000,
        "&".join(f"tag={number}" for number in range(300)),
    ],
)
def test_a_bad_parameter_is_explained(view: TestClient, query: str) -> None:
    answer = view.get(f"/?{query}")
    assert answer.status_code == 400, answer.text
    assert "Try again" in answer.text


def test_a_page_behind_the_last_is_the_last(view: TestClient) -> None:
    assert view.get("/?page=1000").status_code == 200


def test_hostile_names_are_text(view: TestClient) -> None:
    page = view.get("/").text
    assert "<script>document" not in page
    assert "&lt;script&gt;document.title" in page
    assert "\x00" not in page
    assert "\u202e" not in page
    # The link still has the exact name.
    assert link("experiment", name=HOSTILE) in page


def test_an_unchanged_page_is_not_sent_again(view: TestClient) -> None:
    first = view.get("/")
    again = view.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert view.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


def test_an_empty_store_names_the_next_command(tmp_path: Path) -> None:
    Store.open(str(tmp_path / "empty.db")).close()
    with client(tmp_path / "empty.db") as view:
        assert "doteval submit eval_x.py --experiment first" in view.get("/").text


def test_a_path_that_does_not_exist_is_404(view: TestClient) -> None:
    for path in ("/nothing", "/static/nothing.css", "/static/..%2f..%2fapplication.py", "/a/b/c"):
        assert view.get(path).status_code == 404
