"""A store that was opened for reading: it cannot be written, and a query that takes too long is ended."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import text, update

from doteval.errors import NotFoundError, StoreError, StoreReadOnlyError, StoreTimeoutError, StoreVersionError
from doteval.store import Store
from doteval.store.migrations import VERSION_TABLE
from doteval.store.tables import EXPERIMENT
from tests.support.store_workload import begin, done, results, rows

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def test_it_reads_while_others_write_and_writes_nothing(store: Store) -> None:
    evaluation = begin(store, 2)
    with Store.open_read_only(store.raw_url, seconds=30) as reader:
        for row in rows(2):
            store.results.write(results(evaluation, [row], done()), None)
            assert reader.evaluations.counts(evaluation.id).done == row.index + 1
        with pytest.raises(StoreReadOnlyError):
            reader.experiments.begin("another")
        # Not even by a transaction that was begun for reading.
        with pytest.raises(StoreError), reader._database.read() as connection:
            connection.execute(update(EXPERIMENT).values(name="another"))
        assert [each.experiment.name for each in reader.experiments.overviews()] == [evaluation.experiment.name]


def test_a_query_that_takes_too_long_is_ended(store: Store) -> None:
    with Store.open_read_only(store.raw_url, seconds=0.2) as reader:
        began = time.monotonic()
        with pytest.raises(StoreTimeoutError, match="took too long"), reader._database.read() as connection:
            connection.execute(text(ENDLESS))
        # The store itself is well, and the next query has all of its time.
        assert reader.experiments.overviews() == []
        assert time.monotonic() - began < 60


def test_an_older_store_is_not_upgraded(store: Store) -> None:
    with store._database.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0001'"))
    with pytest.raises(StoreVersionError, match="schema version 0001") as raised:
        Store.open_read_only(store.raw_url, seconds=5)
    assert "doteval db upgrade" in (raised.value.remedy or "")


def test_a_newer_store_and_none_at_all_are_refused(store: Store, store_url: str) -> None:
    with store._database.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StoreVersionError, match="newer than this doteval"):
        Store.open_read_only(store_url, seconds=5)
    with store._database.write() as connection:
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    with pytest.raises(NotFoundError, match="no tables of doteval"):
        Store.open_read_only(store_url, seconds=5)
