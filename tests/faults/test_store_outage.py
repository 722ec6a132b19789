"""The store is unavailable, locked or full, and no computed result is lost."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.fault_evaluation import ROWS, check, let_go, reached, some_moment, submitted, write_evaluation
from tests.support.fault_services import PostgresServer, RedisServer
from tests.support.project import Project, wait_until


@contextlib.contextmanager
def evaluating(project: Project, *, until: int, processes: int = 2, held: int | None = None) -> Iterator[None]:
    """Run the block once `until` rows of an evaluation are done. The evaluation must then complete."""
    write_evaluation(project, held=held)
    with submitted(project, processes) as submitter:
        reached(project, until)
        yield
        assert submitter.wait(120) == 0, project.output()
    # Results computed during the outage were kept and stored, so nothing ran twice.
    check(project, "x", in_flight=0)


@pytest.mark.parametrize("away", [0.0, 20.0])
def test_postgresql_restarts_in_the_middle_of_commits(
    project: Project, broker: RedisServer, postgres: PostgresServer, away: float, seed: int
) -> None:
    with evaluating(project, until=some_moment(seed)):
        postgres.kill()
        time.sleep(away)
        postgres.start()


def test_postgresql_ends_a_doteval_transaction_in_a_deadlock(
    project: Project, broker: RedisServer, postgres: PostgresServer, seed: int
) -> None:
    """Another session locks the tables in the opposite order, and the server ends the transaction of doteval."""
    with evaluating(project, until=some_moment(seed), held=ROWS // 2):
        for times in (1, 2, 3):
            # Results wait to be stored each time.
            deadlock(postgres, lambda more=ROWS // 2 + 30 * times: let_go(project, more))
        let_go(project)
    with psycopg.connect(postgres.url) as connection:
        (deadlocks,) = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone() or (0,)
    print(f"deadlocks: {deadlocks}")
    assert deadlocks >= 3
    assert "gave up one of two transactions that waited for each other (40P01)" in project.output()


def deadlock(postgres: PostgresServer, let_results_come: Callable[[], None]) -> None:
    """Make a transaction that stores results and this one wait for each other. This one gives up later."""
    with psycopg.connect(postgres.url) as other, psycopg.connect(postgres.url, autocommit=True) as looking:
        other.execute("SET deadlock_timeout = '60s'")
        # The table that a transaction with results changes last.
        other.execute("LOCK TABLE counters IN EXCLUSIVE MODE")
        let_results_come()

        def waits() -> bool:
            found = looking.execute(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'counters'::regclass"
            ).fetchone()
            return found is not None

        wait_until(waits, what="a transaction that waits for us")
        # The table that it has changed by then. This returns once the server has ended the other transaction.
        other.execute("LOCK TABLE result IN EXCLUSIVE MODE")
        other.rollback()


def test_postgresql_is_read_only_for_a_while(
    project: Project, broker: RedisServer, postgres: PostgresServer, seed: int
) -> None:
    """As with a disk that is nearly full, or a standby that is not promoted yet."""
    with evaluating(project, until=some_moment(seed)), psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
        for state in ("on", "off"):
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {state}")
            connection.execute("SELECT pg_reload_conf()")
            if state == "on":
                wait_until(lambda: "can be read but not written" in project.output(), what="a word about it")
                time.sleep(8)


def test_sqlite_is_locked_by_another_writer(project: Project, broker: RedisServer, seed: int) -> None:
    with evaluating(project, until=some_moment(seed)):
        other = sqlite3.connect(project.path / ".doteval" / "doteval.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(10)
        other.execute("ROLLBACK")
        other.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path.parent / f"{tmp_path.name}-disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_sqlite_on_a_full_disk(project: Project, broker: RedisServer, small_disk: Path) -> None:
    project.environment["DOTEVAL_STORAGE"] = str(small_disk / "results.db")
    with evaluating(project, until=20, processes=1):
        fill = small_disk / "fill"
        with contextlib.suppress(OSError), fill.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        wait_until(lambda: "full" in project.output(), what="a word about the full disk")
        fill.unlink()
