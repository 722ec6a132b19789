"""Experiments side by side."""

from __future__ import annotations

import base64
import re
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from doteval.view.text_differences import TextPart, marked_difference
from tests.support.project import wait_until
from tests.support.view_stores import HOSTILE


def compared(view: TestClient, query: str) -> str:
    """The page, once the rows are compared."""

    def page() -> str | None:
        answer = view.get(f"/compare?{query}")
        assert answer.status_code == 200, answer.text
        if 'class="computing"' in answer.text:
            assert 'data-live-seconds="1"' in answer.text
            return None
        return answer.text

    return str(wait_until(page))


def test_it_gives_the_verdict_and_the_rows_that_changed(view: TestClient) -> None:
    page = compared(view, "a=base&b=new")
    assert '<p class="verdict worse">Worse</p>' in page
    assert "-0.250" in page
    assert "10 rows became worse, 0 improved" in page
    # Both answers, with what differs marked.
    assert "<del>base</del> says key20" in page
    assert "<ins>new</ins> says key20" in page
    assert "doteval compare base new" in page


def test_the_rows_that_changed_are_drawn_beside_their_text(view: TestClient) -> None:
    page = compared(view, "a=base&b=new")
    found = re.search(r'<img class="chart"[^>]* src="data:image/svg\+xml;base64,([^"]*)" alt="([^"]*)"', page)
    assert found is not None
    drawn = base64.b64decode(found[1]).decode()
    assert drawn.startswith("<svg")
    assert "<script" not in drawn
    assert "Rows that changed. eval_qa exact_match accuracy: 0 rows better, 10 worse." in found[2]
    assert 'class="chart"' not in compared(view, "a=base&b=base::eval_qa")


def test_the_other_way_round_it_is_better(view: TestClient) -> None:
    page = compared(view, "a=new&b=base")
    assert '<p class="verdict better">Better</p>' in page
    assert "0 rows became worse, 10 improved" in page


def test_a_pair_and_a_metric_are_chosen_by_the_url(view: TestClient) -> None:
    assert "Rows that changed" in compared(view, "a=base&b=new&pair=0&metric=0")
    answer = view.get("/compare?a=base&b=new&pair=7")
    assert answer.status_code == 400
    assert "does not have" in answer.text


def test_several_are_compared_with_one(view: TestClient) -> None:
    page = compared(view, "a=base&b=new&b=new::eval_qa")
    assert "with" in page


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 200, "Name two experiments"),
        ("b=base", 200, "baseline set NAME"),
        ("a=base", 200, "Name two experiments"),
        ("a=base&b=base", 200, "Name two experiments"),
        ("a=base&b=nothing", 404, "there is no experiment named"),
        ("a=base&b=empty", 404, "has no evaluations"),
        ("a=base&b=new::nothing", 404, "has no evaluation"),
        ("a=base&a=new&b=running", 400, "2 times"),
        ("a=base&" + urlencode([("b", f"x{number}") for number in range(9)]), 400, "8 experiments"),
        ("a=base&b=new&pair=x", 400, "no whole number"),
    ],
)
def test_what_cannot_be_compared_is_explained(view: TestClient, query: str, status: int, says: str) -> None:
    def page() -> str | None:
        answer = view.get(f"/compare?{query}")
        if 'class="computing"' in answer.text:
            return None
        assert answer.status_code == status, answer.text
        return answer.text

    assert says.lower() in wait_until(page).lower()


def test_hostile_names_are_text(view: TestClient) -> None:
    page = compared(view, urlencode({"a": HOSTILE, "b": f"{HOSTILE}::eval_{HOSTILE}[{HOSTILE}]"}))
    assert "<script>document" not in page
    assert "\x00" not in page


def test_only_what_differs_is_marked() -> None:
    assert marked_difference("", "") == ([], [])
    assert marked_difference("same", "same") == ([TextPart("same", False)], [TextPart("same", False)])
    before, after = marked_difference("a b c", "a x c")
    assert [part.text for part in before if part.differs] == ["b"]
    assert [part.text for part in after if part.differs] == ["x"]


def test_texts_of_any_length_are_kept_whole() -> None:
    long = " ".join(map(str, range(200_000)))
    before, after = marked_difference(long, f"other {long}")
    assert "".join(part.text for part in before) == long
    assert "".join(part.text for part in after) == f"other {long}"
    assert after[0] == TextPart("other ", True)
