"""People's labels: who may store them, from where, and where they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from doteval.store import Store
from doteval.view.access import AccessRules
from doteval.view.parameters import link
from tests.support.comparisons import add_experiment
from tests.support.view import client

ORIGIN = {"Origin": "http://localhost:7575"}
NOTE = '<script>document.title = "owned"</script>\r\nline 2'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results.db"
    with Store.open(str(path)) as store:
        add_experiment(store, "base", {"exact_match": [True, False, False]})
    return path


@pytest.fixture
def view(path: Path) -> Iterator[TestClient]:
    with client(path, labels_by="ann") as found:
        yield found


def row(index: int, **more: str) -> str:
    return f"/{link('row', experiment='base', index=index, **more)}"


def form_of(page: str) -> dict[str, Any]:
    """Where the form of a page leads, and the fields that it holds."""
    action = re.search(r'<form class="filters" method="post" action="([^"]*)">', page)
    token = re.search(r'name="form_token" value="(\w+)"', page)
    assert action is not None
    assert token is not None
    return {"action": f"/{unescape(action[1])}", "form_token": token[1]}


def send(view: TestClient, index: int, headers: dict[str, str] = ORIGIN, **fields: str) -> Any:
    form = form_of(view.get(row(index), headers=headers).text)
    return view.post(form.pop("action"), data={**form, **fields}, headers=headers)


def labels(path: Path, index: int = 1) -> list[tuple[str, str, str | None]]:
    with Store.open(str(path)) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("base"))
        (record,) = store.results.of_row(evaluation.id, index)
        return [(each.person, each.judgement.value, each.note) for each in record.labels]


def test_a_person_labels_a_row_changes_it_and_takes_it_back(view: TestClient, path: Path) -> None:
    page = view.get(row(1, where="index > 0")).text
    assert 'name="person" value="ann"' in page
    form = form_of(page)
    answer = view.post(
        form.pop("action"), data={**form, "person": "Bob Ä", "judgement": "wrong", "note": NOTE}, headers=ORIGIN
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == row(1, where="index > 0").lstrip("/")
    page = view.get(row(1)).text
    assert "<script>document" not in page
    # In the table, in the form, and in the JSON.
    assert page.count("&lt;script&gt;document") == 3
    # The form knows who it was, and what was said.
    assert 'name="person" value="Bob Ä"' in page
    assert 'value="wrong" data-wrong aria-pressed="true"' in page
    assert labels(path) == [("Bob Ä", "wrong", NOTE.replace("\r", ""))]
    send(view, 1, person="Bob Ä", judgement="right")
    send(view, 1, person="ann", judgement="wrong")
    assert labels(path) == [("Bob Ä", "right", None), ("ann", "wrong", None)]
    where = "label = 'disputed'"
    listed = view.get(f"/{link('rows', experiment='base', where=where)}").text
    assert "<bdi>disputed</bdi>" in listed
    assert listed.count('class="open"') == 1
    send(view, 1, person="Bob Ä", judgement="")
    assert labels(path) == [("ann", "wrong", None)]


def test_a_sorted_list_follows_new_labels(view: TestClient) -> None:
    page = f"/{link('rows', experiment='base', where='label = null', sort='-index')}"
    assert view.get(page).text.count('class="open"') == 3
    send(view, 1, person="ann", judgement="wrong")
    assert view.get(page).text.count('class="open"') == 2


def test_a_view_that_only_reads_takes_no_label(path: Path) -> None:
    with client(path) as view:
        assert "<form class" not in view.get(row(1)).text
        answer = view.post(f"/{link('label', experiment='base', index=1)}", data={"judgement": "wrong"}, headers=ORIGIN)
        assert answer.status_code == 403
        assert "--allow-labels" in answer.text
    assert labels(path) == []


def test_a_label_is_taken_from_pages_of_the_view_only(view: TestClient, path: Path) -> None:
    fields = {"person": "ann", "judgement": "wrong"}
    form = form_of(view.get(row(1)).text)
    action, token = form["action"], form["form_token"]
    for origin in ("http://evil.example.org", "null", "", "http://localhost.evil.example.org", "file://localhost"):
        answer = view.post(action, data={**fields, "form_token": token}, headers={"Origin": origin})
        assert answer.status_code == 403, origin
    assert view.post(action, data={**fields, "form_token": token}).status_code == 403
    for wrong in ("", "0" * 64, "ä"):
        assert view.post(action, data={**fields, "form_token": wrong}, headers=ORIGIN).status_code == 403
    # The token of another visitor.
    view.cookies.clear()
    assert view.post(action, data={**fields, "form_token": token}, headers=ORIGIN).status_code == 403
    other = form_of(view.get(row(1)).text)["form_token"]
    assert other != token
    assert view.post(action, data={**fields, "form_token": token}, headers=ORIGIN).status_code == 403
    assert view.get(f"{action}&judgement=wrong&person=ann").status_code == 405
    assert labels(path) == []
    assert view.post(action, data={**fields, "form_token": other}, headers=ORIGIN).status_code == 303


def test_the_cookies_of_a_form_are_of_this_site_only(view: TestClient) -> None:
    cookies = view.get(row(1)).headers.get_list("set-cookie")
    cookies += send(view, 1, person="ann", judgement="right").headers.get_list("set-cookie")
    assert [each.split("=")[0] for each in cookies] == ["doteval-view-visitor", "doteval-view-name"]
    for each in cookies:
        assert "HttpOnly" in each
        assert "SameSite=strict" in each
    assert view.get("/").headers.get_list("set-cookie") == []


@pytest.mark.parametrize(
    ("query", "fields", "status"),
    [
        ({"experiment": "base", "index": 1}, {"person": " ", "judgement": "wrong"}, 400),
        ({"experiment": "base", "index": 1}, {"person": "ann", "judgement": "perhaps"}, 400),
        ({"experiment": "base", "index": 1}, {"person": "ann", "judgement": "wrong", "note": "x" * 4_001}, 400),
        ({"experiment": "base", "index": 1}, {"person": "ann", "judgement": "wrong", "note": "x" * 70_000}, 400),
        ({"experiment": "base", "index": 1}, {"person": "ann", "judgement": "wrong", "more": "x"}, 400),
        ({"experiment": "base", "index": "x"}, {"person": "ann", "judgement": "wrong"}, 400),
        ({"experiment": "base", "index": 7}, {"person": "ann", "judgement": "wrong"}, 404),
        ({"experiment": "nothing", "index": 1}, {"person": "ann", "judgement": "wrong"}, 404),
    ],
)
def test_what_is_no_label_is_refused(
    view: TestClient, path: Path, query: dict[str, Any], fields: dict[str, str], status: int
) -> None:
    token = form_of(view.get(row(1)).text)["form_token"]
    answer = view.post(f"/{link('label', **query)}", data={**fields, "form_token": token}, headers=ORIGIN)
    assert answer.status_code == status
    assert labels(path) == []


def test_a_user_whom_the_proxy_names_cannot_be_another(path: Path) -> None:
    user = {"X-Forwarded-User": "Ännä".encode()}
    headers: Any = {**ORIGIN, **user}
    with client(path, AccessRules(trust_header="X-Forwarded-User"), labels_by="root") as view:
        assert 'name="person"' not in view.get(row(1), headers=headers).text
        assert send(view, 1, headers, person="bob", judgement="wrong").status_code == 303
        assert view.post("/label", data={"judgement": "wrong"}, headers=ORIGIN).status_code == 401
    assert labels(path) == [("Ännä", "wrong", None)]


def test_only_a_browser_of_this_machine_gets_the_name_of_the_servers_user(path: Path) -> None:
    with client(path, AccessRules(hosts=("evals",)), labels_by="ann") as view:
        assert 'name="person" value=""' in view.get(row(1), headers={"Host": "evals"}).text
        assert 'name="person" value="ann"' in view.get(row(1), headers={"Host": "127.0.0.1:1"}).text
