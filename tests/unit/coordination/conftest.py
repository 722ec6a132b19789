"""What tests of batches share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from doteval.store import Store
from tests.support.batch_world import World


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    with Store.open(str(tmp_path / "results.db")) as store:
        yield World(store, **getattr(request, "param", {}))
