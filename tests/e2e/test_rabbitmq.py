"""RabbitMQ in Redis's place: the same promises, kept by another broker."""

from __future__ import annotations

import os
import signal

import pytest

from doteval.queue.publisher import Publisher
from tests.e2e.project import Project, leftover_processes, wait_until
from tests.e2e.test_worker_service import EVALUATION, SLOW, ready
from tests.services.rabbitmq import RabbitService


@pytest.fixture
def remote(project: Project, rabbitmq_url: str) -> Project:
    project.environment["DOTEVAL_BROKER"] = rabbitmq_url
    project.write("eval_it.py", EVALUATION)
    return project


def test_a_service_serves_submissions_and_leaves_in_order(remote: Project) -> None:
    with remote.started("worker", ".", "--processes", "2") as service:
        wait_until(lambda: ready(remote, 2), what="two ready worker processes")
        remote.run("submit", "eval_it.py", "--experiment", "one")
        remote.run("submit", "eval_it.py", "--experiment", "two", "--samples", "50", "--priority", "high")
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
    assert len(remote.records("one")["eval_remote"]) == 300
    assert remote.counts() == {"+model": 2, "-model": 2, "begin": 350, "end": 350}
    assert leftover_processes(remote.path) == []


def test_sigterm_lets_rows_in_flight_end_and_gives_the_others_back(remote: Project) -> None:
    remote.write("eval_it.py", SLOW)
    with remote.started("worker", ".", "--processes", "1") as service:
        wait_until(lambda: ready(remote, 1), what="a ready worker process")
        remote.run("submit", "eval_it.py", "--experiment", "far", "--detach")
        wait_until(lambda: remote.done() >= 30, what="30 rows")
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
        stored = remote.done()
        assert stored < 300
    with remote.started("worker", ".", "--processes", "1"):
        remote.run("watch", "far")
    assert remote.counts()["begin"] == remote.counts()["end"] == 300


@pytest.mark.faults
def test_a_killed_worker_process_loses_nothing(remote: Project) -> None:
    remote.write("eval_it.py", SLOW)
    with remote.started("worker", ".", "--processes", "2"):
        wait_until(lambda: ready(remote, 2), what="two ready worker processes")
        remote.run("submit", "eval_it.py", "--experiment", "far", "--detach")
        wait_until(lambda: remote.done() >= 30, what="30 rows")
        os.kill(remote.workers()[0].info.pid, signal.SIGKILL)
        remote.run("watch", "far")
    assert [record.row.index for record in remote.records("far")["eval_remote"]] == list(range(300))
    # Only what was in flight in the killed process may have run twice.
    assert remote.counts()["begin"] <= 310


@pytest.mark.faults
def test_a_broker_that_restarts_loses_nothing(remote: Project, rabbitmq_service: RabbitService) -> None:
    remote.write("eval_it.py", SLOW)
    with remote.started("worker", ".", "--processes", "2"):
        wait_until(lambda: ready(remote, 2), what="two ready worker processes")
        remote.run("submit", "eval_it.py", "--experiment", "far", "--detach")
        wait_until(lambda: remote.done() >= 30, what="30 rows")
        rabbitmq_service.control("stop_app")
        rabbitmq_service.control("start_app")
        remote.run("watch", "far")
    assert [record.row.index for record in remote.records("far")["eval_remote"]] == list(range(300))
    assert remote.counts()["begin"] == 300


def test_the_depth_of_quorum_queues_is_told(remote: Project) -> None:
    remote.run("submit", "eval_it.py", "--experiment", "far", "--detach", "--rows-per-task", "10")
    publisher = Publisher(remote.environment["DOTEVAL_BROKER"], "doteval")
    assert publisher.queued() == 30
    publisher.close()
