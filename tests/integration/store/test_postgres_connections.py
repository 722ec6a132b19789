"""Connections to PostgreSQL that live and are of no use: through a pooler, and after a failover."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
from sqlalchemy import make_url, text

from doteval.core import clocks
from doteval.core.experiments import EvaluationStatus
from doteval.errors import StoreError
from doteval.store import GroupWriter, Store
from tests.support.project import wait_until
from tests.support.store_workload import begin, in_threads, results, rows


@pytest.mark.parametrize("options", ["", "?prepare_threshold=none"])
def test_reading_and_writing_through_pgbouncer(pgbouncer_url: str, options: str) -> None:
    heard: list[BaseException | None] = []
    with Store.open(pgbouncer_url + options) as store:
        evaluation = begin(store, 300)

        def work(number: int) -> None:
            with closing(GroupWriter(store, None, group=3)) as writer:
                for result in results(evaluation, rows(300)[number::6]):
                    writer.put(result, heard.append)
                    assert store.evaluations.by_uid(evaluation.uid).uid == evaluation.uid

        in_threads(work, 6)
        counts = store.evaluations.by_uid(evaluation.uid).counts
    assert heard == [None] * 300
    assert (counts.done, counts.failed) == (300, 0)


def test_no_result_fails_for_a_statement_that_a_pooler_has_lost(pgbouncer_url: str) -> None:
    with Store.open(pgbouncer_url) as store:
        evaluation = begin(store, 60)
    heard: list[BaseException | None] = []
    # With this threshold psycopg prepares every statement, on a connection that the pooler gives to others.
    with Store.open(f"{pgbouncer_url}?prepare_threshold=1") as store:

        def work(number: int) -> None:
            with closing(GroupWriter(store, None, group=2)) as writer:
                for result in results(evaluation, rows(60)[number::6]):
                    writer.put(result, heard.append)

        in_threads(work, 6)
    with Store.open(pgbouncer_url) as store:
        counts = store.evaluations.by_uid(evaluation.uid).counts
    assert heard == [None] * 60
    assert (counts.done, counts.failed) == (60, 0)


def test_a_threshold_that_is_no_number_is_refused(postgres_url: str) -> None:
    with pytest.raises(StoreError, match=r"prepare_threshold .* is neither a number nor none"):
        Store.open(f"{postgres_url}{'&' if '?' in postgres_url else '?'}prepare_threshold=soon")


@contextmanager
def demoted(url: str) -> Iterator[None]:
    """As after a failover: open sessions are read-only for good, new ones are not."""
    name = make_url(url).database
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')
        admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        admin.execute("SELECT pg_reload_conf()")
        try:
            wait_until(lambda: admin.execute("SHOW default_transaction_read_only").fetchone() == ("on",))
            yield
        finally:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
            admin.execute("SELECT pg_reload_conf()")


def open_connections(store: Store) -> None:
    """Leave four connections in the pool."""
    barrier = threading.Barrier(4)

    def use_a_connection(_: int) -> None:
        with store._database.write():
            barrier.wait(120)

    in_threads(use_a_connection, 4)


def test_connections_to_a_demoted_server_are_made_anew(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The server reports that it became read-only, so that no transaction has to fail first."""
    caplog.set_level(logging.WARNING)
    heard: list[BaseException | None] = []
    with Store.open(postgres_url) as store:
        evaluation = begin(store, 20)
        open_connections(store)
        with demoted(postgres_url), closing(GroupWriter(store, None, group=5)) as writer:
            for result in results(evaluation, rows(20)):
                writer.put(result, heard.append)
            assert writer.flush(60)
            store.evaluations.set_status(evaluation.id, EvaluationStatus.COMPLETED)
        counts = store.evaluations.by_uid(evaluation.uid).counts
    assert heard == [None] * 20
    assert (counts.done, counts.failed) == (20, 0)
    assert [each.getMessage() for each in caplog.records] == []


def test_a_store_that_is_read_only_from_the_beginning_is_read_on_the_same_connections(postgres_url: str) -> None:
    with Store.open(postgres_url) as store:
        evaluation = begin(store, 3)
    name = make_url(postgres_url).database
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with Store.open(postgres_url) as store:
        sessions = set()
        for _ in range(3):
            with store._database.read() as connection:
                sessions.add(connection.scalar(text("SELECT pg_backend_pid()")))
        assert store.evaluations.by_uid(evaluation.uid).counts.total == 3
    assert len(sessions) == 1


# What is said on a connection that lives and is of no use: it is read-only, has not the statements expected,
# its server shuts down or starts, its role may not write any more.
USELESS = ["25006", "26000", "42P05", "57P01", "57P02", "57P03", "42501"]


@pytest.mark.parametrize("code", USELESS)
def test_an_error_that_is_not_about_a_value_replaces_all_connections(
    postgres_url: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    heard: list[BaseException | None] = []
    with Store.open(postgres_url) as store:
        evaluation = begin(store, 20)
        open_connections(store)
        with psycopg.connect(postgres_url) as admin:
            # Sessions that are open now get the error, and later ones do not.
            admin.execute(
                f"""
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF (SELECT backend_start < '{clocks.utc_now().isoformat()}'
                        FROM pg_stat_activity WHERE pid = pg_backend_pid())
                    THEN RAISE EXCEPTION 'of no use' USING ERRCODE = '{code}'; END IF;
                    RETURN NEW;
                END $$;
                CREATE TRIGGER refuse BEFORE INSERT ON result FOR EACH ROW EXECUTE FUNCTION refuse();
                """
            )
        with closing(GroupWriter(store, None, group=5)) as writer:
            for result in results(evaluation, rows(20)):
                writer.put(result, heard.append)
            assert writer.flush(60)
        counts = store.evaluations.by_uid(evaluation.uid).counts
    assert heard == [None] * 20
    assert (counts.done, counts.failed) == (20, 0)
    (warned,) = [each.getMessage() for each in caplog.records]
    assert "results wait, because the result store" in warned
