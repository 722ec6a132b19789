"""The web view of a store, without a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from starlette.testclient import TestClient

from doteval.store import Store
from doteval.store.row_labels import RowLabelWriter
from doteval.view.access import AccessRules
from doteval.view.application import make_application
from doteval.view.calculations import Calculations
from doteval.view.labelling import Labelling


@contextlib.contextmanager
def client(
    path: Path | str,
    rules: AccessRules | None = None,
    *,
    seconds: float = 30.0,
    flower: str | None = None,
    labels_by: str | None = None,
) -> Iterator[TestClient]:
    """A client of the view of the store in a file. Answers are as the browser gets them, redirects included.

    labels_by: the name of the server's user; None for a view that takes no labels.
    """
    with contextlib.ExitStack() as opened:
        store = opened.enter_context(Store.open_read_only(str(path), seconds=seconds))
        calculations = opened.enter_context(contextlib.closing(Calculations(store)))
        labelling = None
        if labels_by is not None:
            writer = opened.enter_context(contextlib.closing(RowLabelWriter(str(path))))
            labelling = Labelling(writer, rules or AccessRules(), labels_by)
        yield opened.enter_context(
            TestClient(
                make_application(store, calculations, rules, flower=flower, labelling=labelling),
                base_url="http://localhost:7575",
                follow_redirects=False,
            )
        )
