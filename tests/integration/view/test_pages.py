"""Every page on a store of either database, with a role that may only read."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import make_url
from starlette.testclient import TestClient

from doteval.errors import StoreReadOnlyError
from doteval.store import Store
from doteval.store.row_labels import RowLabelWriter
from doteval.view.parameters import link
from tests.support.comparisons import FAILED, add_experiment
from tests.support.project import wait_until
from tests.support.view import client

PAGES = (
    "/",
    "/?search=BASE&sort=-cost",
    f"/{link('experiment', name='base')}",
    f"/{link('experiment', name='base', sort='-score', search='EVAL', status='completed')}",
)


@pytest.fixture
def reading_url(store: Store, store_url: str) -> Iterator[str]:
    """The store with two experiments, by a URL that may not write."""
    for name, right in (("base", 30), ("new", 12)):
        evaluation = add_experiment(store, name, {"match": [FAILED, *(row < right for row in range(39))]})
        store.summaries.write(evaluation, [store.summary(evaluation)])
    if not store_url.startswith("postgresql"):
        yield store_url
        return
    role = f"viewer_{secrets.token_hex(4)}"
    with psycopg.connect(store_url, autocommit=True) as admin:
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT USAGE ON SCHEMA public TO {role}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        ):
            admin.execute(statement.encode())

    yield make_url(store_url).set(username=role).render_as_string(hide_password=False)
    with psycopg.connect(store_url, autocommit=True) as admin:
        admin.execute(f"DROP OWNED BY {role} CASCADE".encode())
        admin.execute(f"DROP ROLE {role}".encode())


def test_every_page_is_shown_with_the_right_to_read(reading_url: str) -> None:
    with client(reading_url) as view:
        for path in PAGES:
            answer = view.get(path)
            assert answer.status_code == 200, f"{path}: {answer.text}"
            assert "0.750" in answer.text
        assert "Worse" in wait_until(lambda: compared(view))


def test_labels_need_the_right_to_write_their_table(reading_url: str, store: Store, store_url: str) -> None:
    if store_url.startswith("postgresql"):
        role = make_url(reading_url).username
        with pytest.raises(StoreReadOnlyError, match=f"GRANT INSERT, UPDATE, DELETE ON row_label TO {role}"):
            RowLabelWriter(reading_url)
        with psycopg.connect(store_url, autocommit=True) as admin:
            admin.execute(f"GRANT INSERT, UPDATE, DELETE ON row_label TO {role}".encode())
    row = link("row", experiment="new", index=5)
    with client(reading_url, labels_by="ann") as view:
        page = view.get(f"/{row}").text
        token = re.search(r'name="form_token" value="(\w+)"', page)
        assert token is not None
        for judgement in ("right", "wrong"):
            fields = {"form_token": token[1], "person": "ann", "judgement": judgement, "note": "the year"}
            answer = view.post(f"/{row.replace('row?', 'label?')}", data=fields, headers={"Origin": "http://localhost"})
            assert (answer.status_code, answer.headers["location"]) == (303, row)
        assert "the year" in view.get(f"/{row}").text
        where = "label in ('wrong')"
        listed = view.get(f"/{link('rows', experiment='new', where=where)}").text
        assert listed.count('class="open"') == 1
    (evaluation,) = store.evaluations.of(store.experiments.find("new"))
    assert store.row_labels.state(evaluation.id)[0] == 1


def compared(view: TestClient) -> str | None:
    page = view.get("/compare?a=base&b=new").text
    return None if 'class="computing"' in page else page
