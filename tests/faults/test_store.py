"""The store goes away, locks, fills up: no result that was computed is thrown away."""

from __future__ import annotations

import sqlite3
import time

import pytest

from tests.e2e.project import Project, wait_until
from tests.faults.evaluation import CONCURRENCY, check, ready, reached, some_moment, write_evaluation
from tests.faults.services import PostgresServer, RedisServer


@pytest.mark.parametrize("away", [0.0, 20.0])
def test_postgresql_restarts_in_the_middle_of_commits(
    project: Project, broker: RedisServer, postgres: PostgresServer, away: float, seed: int
) -> None:
    write_evaluation(project)
    with project.started("worker", ".", "--processes", "2"):
        ready(project, 2)
        with project.started("submit", "eval_it.py", "--experiment", "x") as submitter:
            reached(project, some_moment(seed))
            postgres.kill()
            time.sleep(away)
            postgres.start()
            assert submitter.wait(90) == 0, project.output()
    # What was computed while the store was away was kept and stored: nothing ran twice.
    check(project, "x", in_flight=0)


def test_sqlite_is_locked_by_another_writer(project: Project, broker: RedisServer, seed: int) -> None:
    write_evaluation(project)
    with project.started("worker", ".", "--processes", "2"):
        ready(project, 2)
        with project.started("submit", "eval_it.py", "--experiment", "x") as submitter:
            reached(project, some_moment(seed))
            other = sqlite3.connect(project.path / ".doteval" / "doteval.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            time.sleep(10)
            other.execute("ROLLBACK")
            other.close()
            assert submitter.wait(90) == 0, project.output()
    check(project, "x", in_flight=0)


def test_sqlite_has_no_room_for_a_while(project: Project, broker: RedisServer) -> None:
    """A full disk, on a file system of the test's own where that can be had; else by SQLite's page limit."""
    write_evaluation(project)
    with project.started("worker", ".", "--processes", "1"):
        ready(project, 1)
        with project.started("submit", "eval_it.py", "--experiment", "x") as submitter:
            reached(project, 20)
            database = sqlite3.connect(project.path / ".doteval" / "doteval.db", isolation_level=None)
            # Readers go on, writers are refused: as on a disk that is full.
            database.execute("CREATE TRIGGER full BEFORE INSERT ON result BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
            begun = project.counts()
            wait_until(lambda: project.counts() != begun, what="rows that cannot be stored")
            stored = project.done()
            # It stops taking tasks: what it holds fills up, and nothing is lost.
            time.sleep(3)
            assert project.done() == stored
            database.execute("DROP TRIGGER full")
            database.close()
            assert submitter.wait(90) == 0, project.output()
    check(project, "x", in_flight=CONCURRENCY)
