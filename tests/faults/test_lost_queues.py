"""Queues are emptied or deleted on a broker that goes on: worker processes consume again, and no row is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.fault_evaluation import (
    CONCURRENCY,
    check,
    let_go,
    ready,
    submitted,
    write_evaluation,
)
from tests.support.fault_services import Broker, RabbitServer, RedisServer, on_both_brokers
from tests.support.project import Project, wait_until

HELD = 20


def is_held_up(project: Project) -> bool:
    """Whether both processes have as many rows in flight as they may, which are held, and all others are stored.

    Row tasks need not come in their order: rows from `HELD` on may take all places before some of the first have begun.
    """
    begun, ended = (
        {event.what.removeprefix(word) for event in project.events() if event.what.startswith(word)}
        for word in ("begin text ", "end text ")
    )
    in_flight = begun - ended
    is_full = len(in_flight) == 2 * CONCURRENCY and all(int(index) >= HELD for index in in_flight)
    return is_full and project.done() == len(ended)


def delete_queues(broker: Broker) -> None:
    if isinstance(broker, RedisServer):
        delete_keys(broker, "doteval*")
    else:
        # The server cancels the consumers.
        broker.flush()


def empty_queues(broker: Broker) -> None:
    assert isinstance(broker, RabbitServer)
    broker.purge()


def forget_bindings(broker: Broker) -> None:
    delete_keys(broker, "_kombu.binding.*")


def forget_held_messages(broker: Broker) -> None:
    delete_keys(broker, "unacked*")


def delete_keys(broker: Broker, pattern: str) -> None:
    assert isinstance(broker, RedisServer)
    found = list(broker.client.scan_iter(pattern))
    assert found
    broker.client.delete(*found)


@pytest.mark.parametrize(
    ("broker", "fault"),
    [
        ("redis", delete_queues),
        ("redis", forget_bindings),
        ("redis", forget_held_messages),
        ("rabbitmq", delete_queues),
        ("rabbitmq", empty_queues),
    ],
    indirect=["broker"],
)
def test_rows_in_flight_run_once(project: Project, broker: Broker, fault: Callable[[Broker], None]) -> None:
    write_evaluation(project, rows=120, held=HELD)
    with submitted(project, 2, "--rows-per-task", "3") as submitter:
        # Each process has rows in flight that are held, and the others wait in the broker.
        wait_until(lambda: is_held_up(project), what="rows in flight in both processes")
        workers = {worker.token for worker in project.workers()}
        fault(broker)
        let_go(project)
        assert submitter.wait(120) == 0, project.output()
        # No process was replaced, whose models would be loaded once more.
        assert {worker.token for worker in project.workers() if worker.left_at is None} == workers
    assert '"critical"' not in project.output()
    assert project.counts()["+model"] == 2
    check(project, "x", rows=120, in_flight=0)


@on_both_brokers
def test_processes_that_wait_consume_again(project: Project, broker: Broker) -> None:
    write_evaluation(project, rows=40)
    with project.started("worker", ".", "--processes", "2", "--name", "gpu") as service:
        ready(project, 2)
        broker.flush()
        project.run("submit", "eval_it.py", "--experiment", "x")
        broker.flush()
        # Remote control has survived, too.
        project.run("drain", "gpu")
        assert service.wait(120) == 0, project.output()
    assert '"critical"' not in project.output()
    assert project.counts()["+model"] == 2
    check(project, "x", rows=40, in_flight=0)
