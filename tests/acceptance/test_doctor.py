"""`doteval doctor` reports what works, what does not, and how to fix it."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import redis

from tests.support.json_shapes import undocumented
from tests.support.project import Project, wait_until
from tests.support.troubleshooting import assert_shown

EVALUATION = """
from doteval import Score, foreach
@foreach("i", [(1,), (2,)])
def eval_it(i):
    return Score("ok", True, ["accuracy"])
"""


def examine(project: Project, code: int, *arguments: str) -> dict[str, dict[str, Any]]:
    """The findings of ``doteval doctor`` by name; fails unless it exits with `code`."""
    document = json.loads(project.run("doctor", *arguments, "--json", check=code).stdout)
    assert undocumented(document, "doctor") == []
    assert document["well"] is (code == 0)
    assert all(finding["remedy"] for finding in document["findings"] if not finding["well"])
    return {finding["name"]: finding for finding in document["findings"]}


def test_a_new_project_passes_and_is_not_changed(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    done = project.run("doctor", ".")
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"OK"}
    assert "1 evaluation below ." in done.stdout
    assert not (project.path / ".doteval").exists()
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    found = examine(project, 0, ".")
    assert found["result store"]["well"]
    assert "the newest" in found["schema"]["text"]


def test_broken_things_are_named_with_a_remedy(project: Project) -> None:
    project.write("eval_it.py", "import no_such_module\n")
    (project.path / "results.db").write_text("not a database, however long one looks at it" * 50)
    found = examine(project, 1, "eval_it.py", "--storage", "results.db", "--broker", "redis://:hush-hush@127.0.0.1:1/0")
    assert "no_such_module" in found["evaluations"]["text"]
    assert "not an SQLite database" in found["result store"]["text"]
    assert "127.0.0.1:1" in found["broker"]["text"]
    assert "hush-hush" not in str(found)


def test_a_store_of_a_newer_doteval_is_reported(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    with sqlite3.connect(project.path / ".doteval" / "doteval.db") as connection:
        connection.execute("UPDATE doteval_version SET version_num = '9999'")
    found = examine(project, 1)
    assert "newer" in found["schema"]["text"]


def test_a_queue_without_workers_and_a_redis_that_evicts_keys_are_reported(project: Project, redis_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", EVALUATION)
    project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
    found = examine(project, 1)
    assert "wait" in found["workers"]["text"]
    assert "doteval worker" in found["workers"]["remedy"]
    assert found["redis memory"]["well"]
    assert found["redis disk"]["well"]
    assert found["redis clock"]["well"]
    with project.started("worker", ".", "--processes", "1"):
        wait_until(lambda: any(worker.state == "ready" for worker in project.workers()), what="a ready worker process")
        found = examine(project, 0)
        assert found["versions"]["well"]
        with redis.Redis.from_url(redis_url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            try:
                found = examine(project, 1)
            finally:
                client.config_set("maxmemory-policy", "noeviction")
    assert not found["redis memory"]["well"]
    assert_shown("broker-memory", "{text}\n{remedy}".format(**found["redis memory"]))


def test_a_worker_process_with_a_wrong_clock_is_named(project: Project, redis_url: str, postgres_url: str) -> None:
    """On PostgreSQL, with whose clock all processes compare. On SQLite each would compare with its own clock."""
    project.environment |= {"DOTEVAL_BROKER": redis_url, "DOTEVAL_STORAGE": postgres_url}
    project.write("eval_it.py", EVALUATION)
    project.write(
        "conftest.py",
        """
        from doteval.core import clocks
        if "AHEAD" in os.environ:
            actual_time = clocks.now
            clocks.now = lambda: actual_time() + float(os.environ["AHEAD"])
        """,
    )
    project.environment["AHEAD"] = "-40"

    def clock_is_reported() -> bool:
        return any(worker.state == "ready" and worker.clock_offset is not None for worker in project.workers())

    with project.started("worker", ".", "--processes", "1"):
        wait_until(clock_is_reported, what="a ready worker process")
        del project.environment["AHEAD"]
        clocks = examine(project, 1)["worker clocks"]
    assert re.fullmatch(r"worker-1@\S+ is (3\d|4\d)\.\d s behind the store's", clocks["text"])
    assert "NTP" in clocks["remedy"]
    with project.started("worker", ".", "--processes", "1"):
        wait_until(lambda: sum(worker.state == "ready" for worker in project.workers()) == 1, what="a ready worker")
        assert examine(project, 0)["worker clocks"]["well"]
