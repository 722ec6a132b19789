"""PostgreSQL says nothing any more: no statement, check or connect waits without a bound, and locks are set free."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from doteval.errors import StoreError
from doteval.store import GroupWriter, Store
from tests.support.postgres_proxy import address_of, by_way_of
from tests.support.silent_connections import SilentProxy
from tests.support.store_workload import begin, in_threads, results, rows


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[SilentProxy]:
    with SilentProxy(address_of(postgres_url)) as proxy:
        yield proxy


def test_a_silent_transaction_is_given_up_and_its_locks_are_free(postgres_url: str, proxy: SilentProxy) -> None:
    """The session on the server would hold the lock of the inserted row until its machine notices, after hours."""
    with Store.open(by_way_of(proxy, postgres_url, answer_timeout="0.5")) as store:
        evaluation = begin(store, 20)
        database = store._database

        def hold_a_lock() -> None:
            with database.write() as connection:
                database.hold(connection, [evaluation.id], alone=True)
                assert proxy.silence() >= 1
                connection.execute(text("SELECT 1"))

        with pytest.raises(StoreError, match=r"cannot be reached: the server has not answered for 0\.5 s") as raised:
            hold_a_lock()
        assert f"the result store {store.url}" in raised.value.message
        with closing(GroupWriter(store, None)) as writer:
            for result in results(evaluation, rows(20)):
                writer.put(result)
            assert writer.flush(60)
        assert store.evaluations.by_uid(evaluation.uid).counts.done == 20


def test_idle_connections_that_went_silent_are_not_used(postgres_url: str, proxy: SilentProxy) -> None:
    with Store.open(by_way_of(proxy, postgres_url, answer_timeout="0.5")) as store:
        evaluation = begin(store, 7)

        def count(_: int) -> int | None:
            return store.evaluations.by_uid(evaluation.uid).counts.total

        assert in_threads(count, 4) == [7] * 4
        assert proxy.silence() >= 1
        assert in_threads(count, 4) == [7] * 4
        # The first look at one of them replaced all.
        assert proxy.silence() >= 1


def test_a_statement_that_the_server_works_on_may_take_long(postgres_url: str, proxy: SilentProxy) -> None:
    with (
        Store.open(by_way_of(proxy, postgres_url, answer_timeout="0.3")) as store,
        store._database.read() as connection,
    ):
        assert connection.execute(text("SELECT 17 FROM pg_sleep(2)")).scalar_one() == 17


def test_a_long_statement_through_pgbouncer(pgbouncer_url: str) -> None:
    """The pooler's number of a session is not that of the server."""
    url = f"{pgbouncer_url}?answer_timeout=0.3"
    with Store.open(url) as store, store._database.read() as connection:
        assert connection.execute(text("SELECT 17 FROM pg_sleep(2)")).scalar_one() == 17


def test_the_answer_to_a_long_statement_that_goes_silent(postgres_url: str, proxy: SilentProxy) -> None:
    """The server sends an answer that never arrives, and waits for the client then."""
    with Store.open(by_way_of(proxy, postgres_url, answer_timeout="0.5")) as store:

        def read() -> None:
            with store._database.read() as connection:
                proxy.silence()
                connection.execute(text("SELECT repeat('x', 1000000) FROM generate_series(1, 100), pg_sleep(1)"))

        with pytest.raises(StoreError, match="has not answered"):
            read()
        assert store.workers.live() == []


def test_a_server_that_accepts_connections_and_never_answers(postgres_url: str, proxy: SilentProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        url = by_way_of(proxy, postgres_url, answer_timeout="0.5", connect_timeout="2")
        with Store.open(url) as store:
            proxy.server = frozen.getsockname()[1]
            proxy.silence()
            with pytest.raises(StoreError, match="cannot be reached") as raised:
                store.workers.live()
            assert store.url in raised.value.message
            proxy.server = address_of(postgres_url)
            assert store.workers.live() == []


@pytest.mark.parametrize("given", ["0", "-1", "soon", "inf", "nan"])
def test_a_bound_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(StoreError, match=r"answer_timeout .* is not a number of seconds"):
        Store.open(f"postgresql://nobody@127.0.0.1:1/none?answer_timeout={given}")
