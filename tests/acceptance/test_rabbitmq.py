"""Behaviour specific to RabbitMQ. Tests of common behaviour run on both brokers, in their own files."""

from __future__ import annotations

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
    """RabbitMQ closes the channel of a consumer that holds a message too long, so the worker process exits cleanly."""
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
    # A second worker process replaced it.
    assert len(project.workers()) == 2
    queues = rabbitmq_service.control("list_queues", "-p", rabbitmq_url.rpartition("/")[2], "name").split()
    assert "doteval~high" in queues
    # Celery's queues for tasks with an ETA, which row tasks never have.
    assert not any(name.startswith("celery_delayed") for name in queues)


def test_the_depth_of_quorum_queues_is_counted(project: Project, rabbitmq_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = rabbitmq_url
    project.write("eval_it.py", EVALUATION)
    project.run("submit", "eval_it.py", "--experiment", "far", "--detach", "--rows-per-task", "10")
    publisher = Publisher(Broker(rabbitmq_url), "doteval")
    assert publisher.queued() == 30
    publisher.close()
