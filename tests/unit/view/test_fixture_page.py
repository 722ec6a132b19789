"""The page of a session fixture."""

from __future__ import annotations

from starlette.testclient import TestClient

from doteval.view.parameters import link
from tests.support.view_stores import HOSTILE


def test_it_shows_the_loads_with_what_the_fixture_said(view: TestClient) -> None:
    page = view.get("/" + link("fixture", experiment="new", fixture=HOSTILE)).text
    assert "1 load in 0.50 s" in page
    assert "worker host:4711" in page
    assert "calls &lt;b&gt; 80" in page
    assert "<script>document" not in page
    assert "doteval usage new --by worker" in page


def test_a_fixture_that_was_not_loaded_is_explained(view: TestClient) -> None:
    answer = view.get("/fixture?experiment=new&fixture=nothing")
    assert answer.status_code == 404
    assert "No worker process of the experiment" in answer.text
    assert view.get("/fixture?experiment=new").status_code == 400
