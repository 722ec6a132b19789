"""URLs of any kind: every one has an answer, none is an error of the view itself."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from hypothesis import example, given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from doteval.view.application import PAGES
from doteval.view.parameters import Parameters, link
from tests.support.view_stores import HOSTILE

NAMES = [
    "name",
    "search",
    "status",
    "tag",
    "since",
    "branch",
    "sort",
    "page",
    "a",
    "b",
    "pair",
    "metric",
    "experiment",
    "evaluation",
    "show",
    "where",
    "index",
    "sample",
    "against",
    "column",
    "after",
    "before",
    "from",
    "texts",
]
# Of the pages of rows.
_ROWS = """odd|o.py::eval_o|::|failed|slow|flipped|whole|0|5|-1|99999999999999|9.0|0.2147483647|-index|index
999999999999999.9999999999|score.exact_match|seconds|-score.exact_match|row.question|row.'a'|tokens >
score.exact_match = 0|index in (1,2)|not|((((|row.topic ~ 'a'|7d|%|_|'|\\|1_000|١"""
VALUES = st.one_of(
    st.sampled_from(
        ["base", "new", "running", "empty", HOSTILE, "evals/eval_qa.py::eval_qa", "-score", "2", "wrong", ""]
    ),
    st.sampled_from(_ROWS.replace("\n", "|").split("|")),
    st.integers().map(str),
    st.text(max_size=40),
    st.text(alphabet="%_'\"\\;()[]{}<>&=~./\x00\ud800\u202e", max_size=20),
)


@given(st.sampled_from(PAGES), st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6))
def test_no_query_is_an_error_of_the_view(view: TestClient, page: object, pairs: list[tuple[str, str]]) -> None:
    query = urlencode(pairs, errors="surrogatepass")
    answer = view.get(f"{page.path}?{query}")  # type: ignore[attr-defined]
    assert answer.status_code in (200, 400, 404), answer.text


@given(
    st.sampled_from(["/rows", "/row"]),
    st.sampled_from(["base", "new", "odd"]),
    st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4),
)
@example("/rows", "base", [("where", "index = 1 " * 300)])
@example("/rows", "base", [("where", "(" * 3_000)])
@example("/row", "odd", [("index", "99999999999999999999")])
def test_no_choice_of_rows_is_an_error_of_the_view(
    rows_view: TestClient, page: str, experiment: str, pairs: list[tuple[str, str]]
) -> None:
    query = urlencode([("experiment", experiment), *pairs], errors="surrogatepass")
    answer = rows_view.get(f"{page}?{query}")
    assert answer.status_code in (200, 400, 404), answer.text


@given(st.binary(max_size=40))
def test_no_path_is_an_error_of_the_view(view: TestClient, path: bytes) -> None:
    answer = view.get("/" + quote(path))
    assert answer.status_code in (200, 400, 404, 405), answer.text


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.text(min_size=1, max_size=30)), unique_by=lambda pair: pair[0]))
def test_what_a_link_says_is_read_again(pairs: list[tuple[str, str]]) -> None:
    given_ = Parameters(link("experiment", **dict(pairs)).partition("?")[2])
    for name, value in pairs:
        assert given_.text(name) == value
    given_.refuse_others()


def test_lone_surrogates_survive_a_link() -> None:
    query = link("experiment", name="\ud800").partition("?")[2]
    assert Parameters(query).required("name") == "\ud800"
