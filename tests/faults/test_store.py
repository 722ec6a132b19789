"""The store goes away, locks, fills up: no result that was computed is thrown away."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import Project, wait_until
from tests.faults.evaluation import check, reached, ready, some_moment, write_evaluation
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
    write_evaluation(project)
    with project.started("worker", ".", "--processes", "1"):
        ready(project, 1)
        with project.started("submit", "eval_it.py", "--experiment", "x") as submitter:
            reached(project, 20)
            fill = small_disk / "fill"
            with contextlib.suppress(OSError), fill.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            wait_until(lambda: "full" in project.output(), what="a word about the full disk", seconds=60)
            fill.unlink()
            assert submitter.wait(90) == 0, project.output()
    check(project, "x", in_flight=0)
