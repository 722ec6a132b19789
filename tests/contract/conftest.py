"""The store contract holds on both databases: every test that takes `store` or `store_url` has two runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from doteval.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a result store that does not exist yet."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite://{tmp_path}/results.db"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as store:
        yield store
