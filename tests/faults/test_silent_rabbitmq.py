"""Connections to RabbitMQ go silent: nothing comes, and nobody closes them. New ones work."""

from __future__ import annotations

from tests.faults.test_silent_broker import RECOVERY_SECONDS
from tests.support.fault_evaluation import check, longest_stop, reached, submitted, write_evaluation
from tests.support.project import Project
from tests.support.silent_connections import SilentProxy

ROWS = 400


def test_open_connections_stay_and_carry_nothing(project: Project, rabbitmq_url: str) -> None:
    """As behind a load balancer that has lost its server, which itself still waits for the old connections."""
    address, _, virtual_host = rabbitmq_url.rpartition("/")
    server, _, port = address.rpartition(":")
    write_evaluation(project, rows=ROWS, seconds=0.5)
    with SilentProxy(int(port)) as proxy:
        project.environment["DOTEVAL_BROKER"] = f"{server}:{proxy.port}/{virtual_host}"
        with submitted(project, 2, "--rows-per-task", "2") as submitter:
            reached(project, 100)
            dropped = proxy.silence()
            longest = longest_stop(project, submitter, ROWS)
            assert submitter.wait(1) == 0, project.output()
    # No process was replaced, whose models would be loaded once more.
    assert project.counts()["+model"] == 2
    assert '"critical"' not in project.output()
    found = check(project, "x", rows=ROWS, in_flight=0)
    print(f"{dropped} connections dropped; recovery {longest:.1f} s; duplicate executions {found.again}")
    assert longest < RECOVERY_SECONDS
