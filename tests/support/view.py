"""The web view of a store, without a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from starlette.testclient import TestClient

from doteval.store import Store
from doteval.view.access import AccessRules
from doteval.view.application import make_application
from doteval.view.calculations import Calculations


@contextlib.contextmanager
def client(
    path: Path | str, rules: AccessRules | None = None, *, seconds: float = 30.0, flower: str | None = None
) -> Iterator[TestClient]:
    """A client of the view of the store in a file. Answers are as the browser gets them, redirects included."""
    with (
        Store.open_read_only(str(path), seconds=seconds) as store,
        contextlib.closing(Calculations(store)) as calculations,
        TestClient(
            make_application(store, calculations, rules, flower=flower),
            base_url="http://localhost:7575",
            follow_redirects=False,
        ) as found,
    ):
        yield found
