"""A result store behind PgBouncer: hundreds of clients, options in the URL, refusals."""

from __future__ import annotations

import contextlib
import re
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from doteval.errors import StoreError
from doteval.store import GroupWriter, Store
from tests.support.commands import Commands
from tests.support.pgbouncer import pgbouncer
from tests.support.project import wait_until
from tests.support.store_workload import begin, in_processes, in_threads, results, rows, work_as_clients

ROWS_OF_A_CLIENT = 5


@pytest.mark.slow("the load of many clients; the test below has the same behaviour with few")
@pytest.mark.parametrize("clients", [60])
def test_many_clients_share_twenty_connections(postgres_url: str, commands: Commands, clients: int) -> None:
    processes = 4
    with pgbouncer(postgres_url, "default_pool_size = 20", "max_client_conn = 1000") as url:
        with Store.open(url) as store:
            evaluation = begin(store, clients * ROWS_OF_A_CLIENT)
        share = clients // processes
        arguments = [[url, evaluation.uid, share, number * share, ROWS_OF_A_CLIENT] for number in range(processes)]
        assert in_processes(commands, work_as_clients, arguments) == [share * ROWS_OF_A_CLIENT] * processes
        with psycopg.connect(postgres_url) as admin:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            (connections,) = admin.execute(query).fetchone() or (0,)
        with Store.open(url) as store:
            counts = store.evaluations.by_uid(evaluation.uid).counts
            live = store.workers.live()
    assert (counts.done, counts.failed) == (clients * ROWS_OF_A_CLIENT, 0)
    assert 1 <= connections <= 20
    assert live == []


@pytest.mark.parametrize(
    "options",
    [
        "connect_timeout=5&keepalives_idle=7&tcp_user_timeout=9000",
        "sslmode=prefer&prepare_threshold=none",
        "options=-cwork_mem%3D9MB",
    ],
)
def test_driver_options_in_the_url(postgres_url: str, options: str) -> None:
    ignored = "ignore_startup_parameters = options,extra_float_digits"
    with pgbouncer(postgres_url, ignored) as url, Store.open(f"{url}?{options}") as store:
        evaluation = begin(store, 4)
        assert store.results.write(results(evaluation, rows(4)), None) == 4
        assert store.evaluations.by_uid(evaluation.uid).counts.done == 4


USERS = '"alice" "secret"\n'


@pytest.mark.parametrize(
    ("user", "more", "settings", "said", "remedy"),
    [
        ("alice:wrong", "", ("auth_type = md5",), "password authentication failed|auth failed", "Check the user and"),
        ("bob:secret", "", ("auth_type = md5",), "authentication failed|no such user", "auth_file|Check the user"),
        ("alice", "", ("auth_type = md5",), "no password supplied", "Put the password into the URL"),
        ("alice:secret", "?sslmode=require", (), "does not support SSL", "Leave sslmode out"),
        ("alice:secret", "?options=-cwork_mem%3D9MB", (), "unsupported startup parameter", "ignore_startup_parameters"),
        ("alice:secret", "", ("max_client_conn = 1",), "no more connections allowed", "raise .*max_client_conn"),
    ],
)
def test_refusals_of_the_pooler(
    postgres_url: str, user: str, more: str, settings: tuple[str, ...], said: str, remedy: str
) -> None:
    with pgbouncer(postgres_url, *settings, users=USERS) as url, contextlib.ExitStack() as stack:
        if "max_client_conn = 1" in settings:
            stack.enter_context(psycopg.connect(url))
        host, _, database = url.partition("@")[2].partition("/")
        with pytest.raises(StoreError, match=said) as raised:
            Store.open(f"postgresql://{user}@{host}/{database}{more}")
    assert raised.value.exit_code == 4
    assert raised.value.remedy is not None
    assert re.search(remedy, raised.value.remedy)
    assert "secret" not in str(raised.value)


def test_a_pooler_with_too_many_clients_is_waited_for(postgres_url: str) -> None:
    with Store.open(postgres_url) as store:
        evaluation = begin(store, 10)
    heard: list[BaseException | None] = []
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(pgbouncer(postgres_url, "max_client_conn = 2"))
        store = stack.enter_context(Store.open(url))
        writer = stack.enter_context(closing(GroupWriter(store, None)))
        others = stack.enter_context(contextlib.ExitStack())
        store._database.engine.dispose()
        for _ in range(2):
            others.enter_context(psycopg.connect(url))
        for result in results(evaluation, rows(10)):
            writer.put(result, heard.append)
        wait_until(lambda: not writer.healthy, what="a refusal")
        assert "no more connections allowed" in str(writer.last_error)
        others.close()
        assert writer.flush(60)
        counts = store.evaluations.by_uid(evaluation.uid).counts
    assert heard == [None] * 10
    assert (counts.done, counts.failed) == (10, 0)


def test_pg_dump_does_not_go_through_a_pooler(postgres_url: str, postgres_programs: Path, tmp_path: Path) -> None:
    with Store.open(postgres_url) as store:
        begin(store, 4)
    with pgbouncer(postgres_url, "default_pool_size = 1") as url:
        with pytest.raises(StoreError, match="leads to a pooler such as PgBouncer") as refused:
            Store.back_up(url, tmp_path / "copy")
        assert "doteval db copy URL FILE.db --running" in str(refused.value.remedy)
        assert list(tmp_path.iterdir()) == []
        # What a pg_dump of another version, which ends at once, leaves in the session.
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT pg_catalog.set_config('search_path', '', false)")
        with pytest.raises(StoreError, match="has an empty search_path, as pg_dump leaves it") as raised:
            Store.open(url, create=False)
        assert raised.value.exit_code == 4
    Store.back_up(postgres_url, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size > 0


def test_connections_that_the_pooler_closes_while_they_are_idle(postgres_url: str) -> None:
    with pgbouncer(postgres_url, "client_idle_timeout = 1", "admin_users = postgres") as url, Store.open(url) as store:
        evaluation = begin(store, 8)
        # Several connections are in the pool.
        in_threads(lambda number: store.results.write(results(evaluation, rows(1, first=number)), None), 4)
        port = make_url(url).port
        wait_until(lambda: clients_of(port) == 0, what="the end of idle connections")
        assert store.evaluations.by_uid(evaluation.uid).counts.done == 4
        in_threads(lambda number: store.results.write(results(evaluation, rows(1, first=4 + number)), None), 4)
        assert store.evaluations.by_uid(evaluation.uid).counts.done == 8


def clients_of(port: int | None) -> int:
    """The clients of databases that a PgBouncer has now."""
    with psycopg.connect(
        f"postgresql://postgres@127.0.0.1:{port}/pgbouncer", autocommit=True, prepare_threshold=None
    ) as admin:
        cursor = psycopg.ClientCursor(admin)
        # It has no extended protocol for its own commands.
        found = cursor.execute("SHOW CLIENTS").fetchall()
        assert cursor.description is not None
        database = [column.name for column in cursor.description].index("database")
        return sum(line[database] != "pgbouncer" for line in found)
