"""Compiled statements behave alike on both databases and are as safe as SQLAlchemy's."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from sqlalchemy import bindparam, insert, select

from doteval.errors import StoreError
from doteval.store import Store
from doteval.store.statements import Prepared
from doteval.store.tables import COUNTERS

NAMES = ("evaluation_id", "worker_id", "done", "failed", "skipped", "attempts", "tokens", "unpriced", "cost")
INSERT = Prepared(lambda _: insert(COUNTERS), *NAMES)
SELECT = Prepared(
    lambda _: select(COUNTERS.c.worker_id, COUNTERS.c.cost).where(COUNTERS.c.evaluation_id == bindparam("evaluation"))
)


def line(worker: int, cost: float) -> dict[str, float]:
    return {**dict.fromkeys(NAMES, 0), "evaluation_id": 1, "worker_id": worker, "cost": cost}


def test_values_come_back_as_inserted(store: Store) -> None:
    with store._database.write() as connection:
        assert INSERT.run(connection, **line(7, 0.25)) == []
        assert INSERT.run(connection, **line(8, 1.5)) == []
        assert sorted(SELECT.run(connection, evaluation=1)) == [(7, 0.25), (8, 1.5)]
        assert SELECT.run(connection, evaluation=2) == []
    with store._database.read() as connection:
        assert sorted(SELECT.run(connection, evaluation=1)) == [(7, 0.25), (8, 1.5)]


def add(store: Store, lines: Iterable[dict[str, float]]) -> None:
    """Insert lines in one transaction."""
    with store._database.write() as connection:
        for each in lines:
            INSERT.run(connection, **each)


def test_statements_belong_to_the_transaction(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        add(store, (line(number, 1 / (8 - number)) for number in (7, 8)))
    with store._database.read() as connection:
        assert SELECT.run(connection, evaluation=1) == []


def test_an_error_of_the_driver_becomes_a_store_error_without_values(store: Store) -> None:
    for _ in range(2):
        with pytest.raises(StoreError, match="refused a statement") as raised:
            add(store, [line(7, 0.25), line(7, 123456.5)])
        assert "123456" not in f"{raised.value} {raised.value.remedy}"
    # The connection still works, and the transaction was rolled back.
    add(store, [line(7, 0.25)])
    with store._database.read() as connection:
        assert SELECT.run(connection, evaluation=1) == [(7, 0.25)]
