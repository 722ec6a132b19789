"""Loads of fixtures are recorded if the store can be used; if not, fixtures load and are torn down all the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from doteval.coordination.fixture_load_recorder import LoadRecorder
from doteval.errors import Outage, StoreError
from doteval.pytest_runtime.load_timer import Load
from doteval.store import Store, WorkerInfo

NAMES = ("model", "client", "judge")


class Away:
    """The loads of a store that cannot be used."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._outage = Outage()

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object, **__: object) -> None:
            self.asked.append(name)
            error = StoreError("the result store cannot be reached")
            error.outage = self._outage
            raise error

        return refuse


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(str(tmp_path / "results.db")) as store:
        yield store


def recorder(store: Store) -> LoadRecorder:
    return LoadRecorder(store, store.workers.begin(WorkerInfo("worker", "host", 1, ("doteval",), 1)))


@pytest.fixture
def loads() -> list[Load]:
    return [Load(name, "", 0.5, None) for name in NAMES]


def test_a_store_that_is_away_at_the_load(
    store: Store, loads: list[Load], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    recorded, away = recorder(store), Away()
    with monkeypatch.context() as patch:
        patch.setattr(store, "loads", away)
        for load in loads:
            recorded.loaded(load)
        recorded.load_failed(Load("broken", "", 0.5, None, error="ValueError: x"))
        recorded.snapshot()
    # It is back: what was not recorded has no end.
    for load in loads:
        recorded.unloading(load)
    assert away.asked == ["begin"] * 4
    assert [each.getMessage() for each in caplog.records] == [
        "the load of the fixture model cannot be recorded: the result store cannot be reached"
    ]


def test_a_store_that_is_away_at_the_teardown_is_asked_once(
    store: Store, loads: list[Load], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    recorded, away = recorder(store), Away()
    for load in loads:
        recorded.loaded(load)
    monkeypatch.setattr(store, "loads", away)
    for load in reversed(loads):
        recorded.unloading(load)
    assert away.asked == ["end"]
    assert [each.getMessage() for each in caplog.records] == [
        "the teardown of the fixture judge cannot be recorded: the result store cannot be reached"
    ]
