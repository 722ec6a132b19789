"""Behaviour specific to RabbitMQ. Tests of common behaviour run on both brokers, in their own files."""

from __future__ import annotations

import signal

import pytest

from doteval.broker.publisher import Publisher
from doteval.core.broker_url import Broker
from tests.acceptance.test_worker_service import EVALUATION, ready
from tests.support.project import Project, wait_until
from tests.support.rabbitmq import RabbitService

LONG = """
import asyncio
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(8)])
async def eval_long(i):
    tell(f"begin {i}")
    await asyncio.sleep(6)
    return Score("ok", True, ["accuracy"])
"""


@pytest.mark.faults
def test_a_row_longer_than_the_consumer_timeout_runs_once(
    project: Project, rabbitmq_service: RabbitService, rabbitmq_url: str
) -> None:
    """RabbitMQ closes the channel of a consumer that holds a message too long, and the worker process connects anew."""
    rabbitmq_service.evaluate(
        "application:set_env(rabbit, consumer_timeout, 3000), application:set_env(rabbit, channel_tick_interval, 1000)."
    )
    project.environment["DOTEVAL_BROKER"] = rabbitmq_url
    project.write("eval_it.py", LONG)
    try:
        with project.started("worker", ".", "--processes", "1", "--concurrency", "4"):
            wait_until(lambda: ready(project, 1), what="a ready worker process")
            project.run("submit", "eval_it.py", "--experiment", "x", "--rows-per-task", "1")
    finally:
        rabbitmq_service.evaluate(
            "application:set_env(rabbit, consumer_timeout, 1800000),"
            " application:set_env(rabbit, channel_tick_interval, 60000)."
        )
    assert "delivery acknowledgement on channel 1 timed out" in project.output()
    assert [record.outcome.status for record in project.records("x")["eval_long"]] == ["done"] * 8
    assert project.counts() == {f"begin {i}": 1 for i in range(8)}
    # No other worker process has replaced it.
    assert len(project.workers()) == 1
    queues = rabbitmq_service.control("list_queues", "-p", rabbitmq_url.rpartition("/")[2], "name").split()
    assert "doteval~high" in queues
    # Celery's queues for tasks with an ETA, which row tasks never have.
    assert not any(name.startswith("celery_delayed") for name in queues)


STUCK = """
import asyncio
from pathlib import Path
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(24)])
async def eval_NAME(i):
    tell(f"NAME {i}")
    while "NAME" == "stuck" and i == 0 and not Path("go").exists():
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    return Score("ok", True, ["accuracy"])
"""


def test_rows_that_a_leaving_service_gives_back_run_once(project: Project, rabbitmq_url: str) -> None:
    """RabbitMQ gets their messages back when the last row in flight has ended. Until then nobody publishes them."""
    project.environment["DOTEVAL_BROKER"] = rabbitmq_url
    project.write("eval_stuck.py", STUCK.replace("NAME", "stuck"))
    project.write("eval_other.py", STUCK.replace("NAME", "other"))
    worker = ("worker", ".", "--processes", "1", "--concurrency", "2")

    def published() -> int:
        with project.store() as store:
            (evaluation,) = store.evaluations.of(store.experiments.find("x"))
            return store.evaluations.published(evaluation.id)

    with project.started(*worker, "--name", "old") as old:
        wait_until(lambda: ready(project, 1), what="a ready worker process")
        project.run("submit", "eval_stuck.py", "--experiment", "x", "--detach", "--rows-per-task", "6")
        before = published()
        wait_until(lambda: len(project.workers()[0].holding) == 4, what="a process that holds all row tasks")
        wait_until(lambda: project.counts()["stuck 0"], what="row 0")
        with project.started(*worker, "--name", "new"):
            wait_until(lambda: ready(project, 2), what="two ready worker processes")
            old.send_signal(signal.SIGTERM)
            wait_until(lambda: "draining" in {worker.state for worker in project.workers()}, what="the drain")
            # It takes longer than a queue must be empty before rows count as lost.
            project.run("submit", "eval_other.py", "--experiment", "y")
            (project.path / "go").touch()
            project.run("watch", "x")
            assert old.wait(120) == 0
    assert published() == before
    assert project.counts() == {f"{name} {i}": 1 for name in ("stuck", "other") for i in range(24)}


def test_the_depth_of_quorum_queues_is_counted(project: Project, rabbitmq_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = rabbitmq_url
    project.write("eval_it.py", EVALUATION)
    project.run("submit", "eval_it.py", "--experiment", "far", "--detach", "--rows-per-task", "10")
    publisher = Publisher(Broker(rabbitmq_url), "doteval")
    assert publisher.queued() == 30
    publisher.close()
