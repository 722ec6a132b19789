"""What happens to the store while the view runs: its file goes, comes back, is another one, or is upgraded."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from doteval.store import Store
from doteval.store.migrations import VERSION_TABLE
from doteval.view.parameters import link
from tests.support.comparisons import add_experiment
from tests.support.project import wait_until
from tests.support.view import client


def make_store(path: Path, model: str) -> None:
    """A store with an experiment that is the same in all but its model."""
    with Store.open(str(path)) as store:
        add_experiment(store, "first", {"match": [True, False]}, model=model)


def models(view: TestClient) -> list[str]:
    def shown() -> list[str] | None:
        page = view.get("/" + link("experiment", name="first")).text
        return None if 'class="computing"' in page else re.findall(r"<bdi>(model-\w+)</bdi>", page)

    return wait_until(shown, seconds=60)


def test_another_file_in_the_place_of_the_store_is_read_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    make_store(path, "model-old")
    with client(path) as view:
        assert models(view) == ["model-old"]
        path.rename(tmp_path / "aside.db")
        gone = view.get("/")
        assert gone.status_code == 503
        assert "cannot be" in gone.text
        (tmp_path / "aside.db").rename(path)
        assert models(view) == ["model-old"]
        path.unlink()
        # As many experiments, rows and results, with the same ids.
        make_store(path, "model-new")
        assert models(view) == ["model-new"]


def test_a_store_that_another_doteval_has_upgraded_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    make_store(path, "model-old")
    with client(path) as view:
        assert view.get("/").status_code == 200
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        answer = view.get("/")
        assert answer.status_code == 503
        assert "doteval docs troubleshooting#store-version" in answer.text


@pytest.mark.parametrize(
    ("path", "section"),
    [
        (link("experiment", name="nothing"), "experiment-not-found"),
        (link("rows", experiment="first", where="tokenz > 1"), "filter-not-read"),
    ],
)
def test_an_error_names_its_section_of_the_documentation(tmp_path: Path, path: str, section: str) -> None:
    make_store(tmp_path / "results.db", "model-old")
    with client(tmp_path / "results.db") as view:
        assert f"doteval docs troubleshooting#{section}" in view.get(f"/{path}").text
