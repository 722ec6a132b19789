"""The page of rows: what a URL chooses, how its pages follow one another, and what it says where there is nothing."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from doteval.view import row_choice
from doteval.view.pages import rows
from tests.support.project import wait_until
from tests.support.view_stores import HOSTILE


def url(**parameters: Any) -> str:
    return f"/rows?{urlencode({'experiment': 'base', **parameters}, doseq=True, errors='surrogatepass')}"


def indexes(page: str) -> list[int]:
    """The rows that a page lists."""
    return [int(each) for each in re.findall(r'class="open" href="row\?[^"]*index=(\d+)', page)]


def _unless_computing(view: TestClient, address: str) -> str | None:
    page = view.get(address).text
    return None if 'class="computing"' in page else page


def step(page: str, relation: str) -> str | None:
    found = re.search(rf'<a rel="{relation}" href="([^"]*)"', page)
    return None if found is None else f"/{html.unescape(found[1])}"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    # Sorted rows are read in parts of two pages.
    for module in (rows, row_choice):
        monkeypatch.setattr(module, "PAGE", 7)
        monkeypatch.setattr(module, "PART", 14)


WRONG = list(range(30, 38))


@pytest.mark.usefixtures("small")
def test_the_rows_of_an_order_know_their_neighbours_in_its_next_part(view: TestClient) -> None:
    last = wait_until(lambda: _unless_computing(view, url(sort="-index", page=2)))
    assert ">8 to 14 of this order<" in last
    address = re.findall(r'class="open" href="([^"]*index=26[^"]*)"', last)[0]
    row = wait_until(lambda: _unless_computing(view, f"/{html.unescape(address)}"))
    first_of_next = step(row, "next")
    assert first_of_next is not None
    assert "index=25" in first_of_next
    row = wait_until(lambda: step(view.get(first_of_next).text, "next"))
    assert "index=24" in row
    # Behind the end there is nothing but the way back.
    beyond = wait_until(lambda: _unless_computing(view, url(sort="-index", page=99)))
    assert indexes(beyond) == []
    assert step(beyond, "prev") is not None


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, list(range(40))),
        ({"show": "wrong"}, WRONG),
        ({"show": "failed"}, [38, 39]),
        ({"where": "score.exact_match = 0 and index < 35"}, [30, 31, 32, 33, 34]),
        ({"show": "wrong", "where": "index >= 36"}, [36, 37]),
        ({"sort": "-index"}, list(range(39, -1, -1))),
        ({"sort": "score.exact_match"}, [*WRONG, *range(30), 38, 39]),
        ({"from": 33, "show": "wrong"}, [33, 34, 35, 36, 37]),
        ({"where": "score.exact_match = 7"}, []),
    ],
)
@pytest.mark.usefixtures("small")
def test_its_pages_hold_the_rows_that_the_url_chooses_forwards_and_back(
    view: TestClient, parameters: dict[str, Any], expected: list[int]
) -> None:
    pages = []
    address: str | None = url(**parameters)
    while address is not None:
        pages.append(view.get(address).text)
        address = step(pages[-1], "next")
    assert [index for page in pages for index in indexes(page)] == expected
    assert all(len(indexes(page)) <= 7 for page in pages)
    # And the same way back.
    back = indexes(pages[-1])
    address = step(pages[-1], "prev")
    while address is not None and "from" not in parameters:
        page = view.get(address).text
        back = [*indexes(page), *back]
        address = step(page, "prev")
    if "from" not in parameters:
        assert back == expected


@pytest.mark.usefixtures("small")
def test_a_look_that_ends_early_says_how_far_it_came_and_goes_on(
    view: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_choice, "_TEXT_SECONDS", 0.0)
    monkeypatch.setattr("doteval.store.row_pages._FIRST_WINDOW", 10)
    address: str | None = url(search="nowhere to be found")
    said = []
    while address is not None:
        page = view.get(address).text
        said += re.findall(r"Looked at (\d+) of 40 rows", page)
        address = step(page, "next")
    assert said == ["10", "20", "30"]
    assert "No row matches here" in page


def test_flipped_rows_are_those_whose_scores_differ(view: TestClient) -> None:
    page = wait_until(lambda: _unless_computing(view, url(experiment="new", against="base")))
    assert sorted(indexes(page)) == list(range(20, 30))

    def flipped(**parameters: str) -> list[int]:
        """The rows that changed, of those that a filter and a text choose."""
        page = wait_until(lambda: _unless_computing(view, url(experiment="new", against="base", **parameters)))
        return indexes(page)

    assert sorted(flipped(where="index > 26")) == [27, 28, 29]
    assert flipped(where="index > 26 and index < 29", sort="-index") == [28, 27]
    assert flipped(sort="index") == list(range(20, 30))
    assert flipped(where="index < 20") == []
    assert flipped(search="nowhere to be found") == []
    assert view.get(url(experiment="new", against="base", where="tokens >")).status_code == 400
    assert view.get(url(experiment="new", against="nothing")).status_code == 404
    assert view.get(url(experiment="new", show="flipped")).status_code == 400


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({"where": "tokens >"}, "tokens &gt;\n          ^"),
        ({"where": "index = 1 and nothing = 2"}, "index = 1 and nothing = 2\n                ^"),
        ({"sort": "-nothing"}, "there is no field"),
    ],
)
def test_a_filter_that_cannot_be_read_shows_where(view: TestClient, parameters: dict[str, str], place: str) -> None:
    answer = view.get(url(**parameters))
    assert answer.status_code == 400
    assert place in answer.text
    # What was written stays in the box.
    assert html.escape(parameters.get("where", "Filter"), quote=False).replace("&gt;", "&gt;") in answer.text


@pytest.mark.parametrize(
    "parameters",
    [
        {"after": "x"},
        {"before": "-1.0"},
        {"after": "1"},
        {"from": "x"},
        {"show": "nothing"},
        {"column": "nothing"},
        {"column": "score.nothing"},
        {"nothing": "1"},
        {"where": ["index = 1", "index = 2"]},
        {"page": "0", "sort": "index"},
    ],
)
def test_what_cannot_be_meant_is_refused(view: TestClient, parameters: dict[str, Any]) -> None:
    assert view.get(url(**parameters)).status_code == 400


def test_columns_are_chosen_and_stay_chosen(view: TestClient) -> None:
    page = view.get(url(column=["index", "score.exact_match", "worker", "attempts"], sort="-index")).text
    heads = re.findall(r"<bdi>([\w.]+)</bdi>", page.split("<thead>")[1].split("</thead>")[0])
    assert heads == ["row", "index", "score.exact_match", "worker", "attempts"]
    assert 'name="column" value="worker" checked' in page
    following = html.unescape(re.findall(r'<a href="(rows[^"]*)"', page.split("<thead>")[1])[0])
    assert following.count("column=") == 4


def test_an_unknown_evaluation_is_not_found_and_none_is_the_first(view: TestClient) -> None:
    assert view.get(url(evaluation="a.py::nothing")).status_code == 404
    assert view.get(url(experiment="nothing")).status_code == 404
    answer = view.get(url(experiment="empty"))
    assert answer.status_code == 404
    assert "Run its evaluations first" in answer.text


def test_names_of_hostile_experiments_are_escaped(view: TestClient) -> None:
    page = view.get(url(experiment=HOSTILE)).text
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert indexes(page) == [0, 1]
    named = html.unescape(re.findall(r'name="column" value="(score\.[^"]*)"', page)[0])
    again = view.get(url(experiment=HOSTILE, column=named, sort=f"-{named}"))
    # The name of this score holds characters that no page and no filter may.
    assert again.status_code == 400
