"""What RabbitMQ has and Redis has not. That it keeps the same promises is shown where the promises are."""

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
def test_a_row_longer_than_rabbitmq_waits_for_an_acknowledgement_runs_once(
    project: Project, rabbitmq_service: RabbitService, rabbitmq_url: str
) -> None:
    """It closes the channel of whoever holds a message too long, which ends the worker process in order."""
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
    # Another took its place.
    assert len(project.workers()) == 2
    queues = rabbitmq_service.control("list_queues", "-p", rabbitmq_url.rpartition("/")[2], "name").split()
    assert "doteval~high" in queues
    # Celery's own, for tasks with a time, which row tasks never have.
    assert not any(name.startswith("celery_delayed") for name in queues)


def test_the_depth_of_quorum_queues_is_told(project: Project, rabbitmq_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = rabbitmq_url
    project.write("eval_it.py", EVALUATION)
    project.run("submit", "eval_it.py", "--experiment", "far", "--detach", "--rows-per-task", "10")
    publisher = Publisher(Broker(rabbitmq_url), "doteval")
    assert publisher.queued() == 30
    publisher.close()
