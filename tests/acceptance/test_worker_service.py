"""`doteval worker` and plain Celery workers, apart from the submitter."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Collection

import pytest
from celery import Celery

from tests.support.project import Project, leftover_processes, suspend, wait_until
from tests.support.troubleshooting import assert_shown

EVALUATION = """
import asyncio
import pytest
from doteval import Result, foreach
from doteval.evaluators import exact_match

@pytest.fixture(scope="session")
def model():
    tell("+model")
    yield "m"
    tell("-model")

@foreach("text,label", [(f"text {i}", str(i % 2)) for i in range(300)])
async def eval_remote(text, label, model):
    tell("begin")
    await asyncio.sleep(0.02)
    tell("end")
    return Result(exact_match(label, "0"), prompt=text)
"""


# Slow enough for a test to act while rows run.
SLOW = EVALUATION.replace("asyncio.sleep(0.02)", "asyncio.sleep(0.5)")


@pytest.fixture(
    params=[
        ("redis", None),
        pytest.param(("redis", "postgres"), marks=pytest.mark.variant),
        pytest.param(("rabbitmq", None), marks=pytest.mark.variant),
    ],
    ids=lambda param: "-".join(filter(None, param)),
)
def remote(request: pytest.FixtureRequest, project: Project) -> Project:
    """A project with a Redis or RabbitMQ broker, and SQLite or PostgreSQL as its store."""
    broker, store = request.param
    project.environment["DOTEVAL_BROKER"] = request.getfixturevalue(f"{broker}_url")
    if store is not None:
        project.environment["DOTEVAL_STORAGE"] = request.getfixturevalue(f"{store}_url")
    project.write("eval_it.py", EVALUATION)
    return project


def ready(project: Project, processes: int) -> bool:
    return sum(worker.state == "ready" for worker in project.workers()) >= processes


def test_a_service_runs_submissions_and_exits_cleanly(remote: Project) -> None:
    with remote.started("worker", ".", "--processes", "2") as service:
        wait_until(lambda: ready(remote, 2), what="two ready worker processes")
        remote.run("submit", "eval_it.py", "--experiment", "one")
        remote.run("submit", "eval_it.py", "--experiment", "two", "--samples", "50")
        service.send_signal(signal.SIGTERM)
        assert service.wait(120) == 0
    assert len(remote.records("one")["eval_remote"]) == 300
    assert len(remote.records("two")["eval_remote"]) == 50
    counts = remote.counts()
    assert counts == {"+model": 2, "-model": 2, "begin": 350, "end": 350}
    assert {worker.state for worker in remote.workers()} == {"left"}
    assert leftover_processes(remote.path) == []


def test_a_worker_process_prefetches_no_more_rows_than_it_soon_runs(project: Project, redis_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", SLOW)
    project.run("submit", "eval_it.py", "--experiment", "slow", "--detach", "--rows-per-task", "5")
    with project.started("worker", ".", "--processes", "1", "--concurrency", "10"):
        wait_until(lambda: project.counts()["end"] >= 30, what="30 ended rows")

        def holding() -> list[object]:
            found = [each for worker in project.workers() for each in worker.holding]
            return found if len(found) >= 2 else []

        held = wait_until(holding, what="row tasks that it holds")
        project.run("cancel", "slow")
    # Rows for the next seconds, those fetched before their duration was known, and those not stored yet: 60 would fit.
    assert len(held) <= 9


def test_detached_submissions_run_and_can_be_watched(remote: Project) -> None:
    detached = remote.run("submit", "eval_it.py", "--experiment", "far", "--detach")
    assert "doteval watch far" in detached.stdout
    assert remote.json("status", "far")["evaluations"][0]["rows"]["pending"] == 300
    with remote.started("worker", ".", "--processes", "1"):
        remote.run("watch", "far")
        status = remote.json("status", "far")
        assert status["evaluations"][0]["status"] == "completed"
        assert status["evaluations"][0]["rows"]["done"] == 300
        assert len(status["workers"]) == 1


def test_sigterm_finishes_rows_in_flight_and_returns_the_others(remote: Project) -> None:
    remote.write("eval_it.py", SLOW)
    with remote.started("worker", ".", "--processes", "1") as service:
        wait_until(lambda: ready(remote, 1), what="a ready worker process")
        remote.run("submit", "eval_it.py", "--experiment", "far", "--detach")
        wait_until(lambda: remote.done() >= 30, what="30 rows")
        service.send_signal(signal.SIGTERM)
        assert service.wait(120) == 0
        stored = remote.done()
        assert stored < 300
    counts = remote.counts()
    assert counts["begin"] == counts["end"] == stored
    assert counts["-model"] == 1
    with remote.started("worker", ".", "--processes", "1"):
        remote.run("watch", "far")
    assert len(remote.records("far")["eval_remote"]) == 300
    assert remote.counts()["begin"] == 300


@pytest.mark.parametrize("pool", [(), pytest.param(("--pool", "solo"), marks=pytest.mark.slow("the default pool"))])
def test_a_plain_celery_worker_runs_rows(project: Project, broker_url: str, pool: tuple[str, ...]) -> None:
    project.environment |= {"DOTEVAL_BROKER": broker_url, "DOTEVAL_PATH": "."}
    project.write("eval_it.py", EVALUATION)
    program = [sys.executable, "-m", "celery", "-A", "workers", "worker", "-n", "plain@%h", *pool]
    with project.started(program=program) as worker:
        wait_until(lambda: ready(project, 1), what="a ready worker process")
        inspect = Celery(broker=broker_url).control.inspect(timeout=1)
        answers = wait_until(inspect.ping, what="an answer to Celery's ping")
        assert any(name.startswith("plain@") for name in answers)
        project.run("submit", "eval_it.py", "--experiment", "one")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) == 0
    assert len(project.records("one")["eval_remote"]) == 300
    assert project.counts()["+model"] == project.counts()["-model"] == 1


def begun_in(project: Project, pids: Collection[int]) -> int:
    return sum(event.pid in pids and event.what == "begin" for event in project.events())


def stored_by(project: Project, pids: Collection[int]) -> int:
    workers = {f"{socket.gethostname()}:{pid}" for pid in pids}
    return sum(record.worker in workers for record in project.records("far")["eval_remote"])


@pytest.mark.slow("tests/faults/test_worker_death.py, with SQLite on both brokers")
@pytest.mark.parametrize("remote", [("redis", "postgres")], indirect=True, ids=["postgres"])
@pytest.mark.parametrize("victim", ["process", "service"])
def test_a_killed_worker_loses_nothing(remote: Project, victim: str) -> None:
    remote.write("eval_it.py", SLOW)
    with remote.started("worker", ".", "--processes", "2") as service:
        wait_until(lambda: ready(remote, 2), what="two ready worker processes")
        remote.run("submit", "eval_it.py", "--experiment", "far", "--detach")
        wait_until(lambda: remote.done() >= 30, what="30 rows")
        killed = [worker.info.pid for worker in remote.workers()][: 1 if victim == "process" else None]
        suspend(killed)
        in_flight = begun_in(remote, killed) - stored_by(remote, killed)
        for pid in [service.pid, *killed] if victim == "service" else killed:
            os.kill(pid, signal.SIGKILL)
        if victim == "process":
            remote.run("watch", "far")
        else:
            service.wait()
    if victim == "service":
        with remote.started("worker", ".", "--processes", "2"):
            remote.run("watch", "far")
    records = remote.records("far")["eval_remote"]
    assert [record.row.index for record in records] == list(range(300))
    # Only rows in flight in the killed processes may run twice: those running, and those not stored yet.
    assert remote.counts()["begin"] <= 300 + in_flight


def test_a_worker_with_different_files_names_them(project: Project, redis_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.environment["DOTEVAL_STORAGE"] = str(project.path / "results.db")
    project.write("here/eval_it.py", EVALUATION + "from helper import one\n")
    project.write("here/helper.py", "one = 1\n")
    project.write("there/eval_it.py", EVALUATION + "from helper import one\n")
    project.write("there/helper.py", "one = 2\n")
    for place in ("here", "there"):
        (project.path / place / "pytest.ini").write_text("[pytest]\n")
    with project.started("worker", "there", "--processes", "1"):
        wait_until(lambda: ready(project, 1), what="a ready worker process")
        done = project.run("submit", "here", "--experiment", "x", check=None)
        (worker,) = [each for each in project.workers() if each.info.pid != 0]
    assert done.returncode == 5
    assert re.search(r"helper\.py \([0-9a-f]{8}, the submitter's [0-9a-f]{8}\)", done.stderr)
    # It stays, for evaluations whose files it has.
    assert worker.state == "ready"
    assert project.counts()["+model"] == 1
    assert "eval_it.py, helper.py" not in done.stderr
    assert_shown("files-differ", done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    assert project.counts()["begin"] == 0
