"""The broker dies, loses its data, hangs, fills up or closes connections; worker processes recover by themselves."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.support.fault_evaluation import CONCURRENCY, check, reached, ready, some_moment, submitted, write_evaluation
from tests.support.fault_services import Broker, on_both_brokers
from tests.support.project import Project, wait_until


def restart_with_its_log(broker: Broker, seed: int) -> None:
    broker.kill()
    time.sleep(random.Random(seed).uniform(0.0, 2.0))
    broker.start()


def restart_with_an_empty_disk(broker: Broker, seed: int) -> None:
    broker.kill()
    broker.forget()
    broker.start()


def forget_everything(broker: Broker, seed: int) -> None:
    broker.flush()


def hang_for_20_seconds(broker: Broker, seed: int) -> None:
    broker.pause()
    time.sleep(20)
    broker.resume()


def cut_every_connection(broker: Broker, seed: int) -> None:
    broker.cut()


def fill_up_for_5_seconds(broker: Broker, seed: int) -> None:
    broker.fill()
    time.sleep(5)
    broker.relieve()


FAULTS = [
    restart_with_its_log,
    restart_with_an_empty_disk,
    forget_everything,
    hang_for_20_seconds,
    cut_every_connection,
    fill_up_for_5_seconds,
]


@on_both_brokers
@pytest.mark.parametrize("fault", FAULTS)
def test_broker_faults(project: Project, broker: Broker, fault: Callable[[Broker, int], None], seed: int) -> None:
    write_evaluation(project)
    # Enough row tasks that some wait in the broker.
    with submitted(project, 2, "--rows-per-task", "3") as submitter:
        reached(project, some_moment(seed))
        workers = {worker.info.pid for worker in project.workers()}
        fault(broker, seed)
        ended = time.monotonic()
        assert submitter.wait(120) == 0, project.output()
        print(f"completed {time.monotonic() - ended:.1f} s after the fault ended")
        # No process was restarted.
        assert {worker.info.pid for worker in project.workers() if worker.left_at is None} == workers
    check(project, "x", in_flight=2 * CONCURRENCY)


def test_a_row_longer_than_the_visibility_timeout_runs_once(project: Project, broker: Broker) -> None:
    project.environment["DOTEVAL_VISIBILITY_TIMEOUT"] = "4"
    write_evaluation(project, rows=6, seconds=12.0)
    with project.started("worker", ".", "--processes", "2"):
        ready(project, 2)
        project.run("submit", "eval_it.py", "--experiment", "x", "--rows-per-task", "1")
    check(project, "x", rows=6, in_flight=0)


def test_a_slow_row_does_not_delay_others(project: Project, broker: Broker) -> None:
    project.write(
        "eval_it.py",
        """
        import asyncio
        from doteval import Score, foreach
        @foreach("i", [(i,) for i in range(200)])
        async def eval_straggling(i):
            await asyncio.sleep(40 if i == 3 else 0.05)
            tell(f"end {i}")
            return Score("ok", True, ["accuracy"])
        """,
    )
    with project.started("worker", ".", "--processes", "1"):
        ready(project, 1)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        wait_until(lambda: project.done() == 199, what="all rows but the straggler")
        project.run("watch", "x")
    assert project.events()[-1].what == "end 3"
