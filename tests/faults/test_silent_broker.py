"""Connections to Redis go silent, as after a firewall has forgotten them: no packet comes, and nobody closes them."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from doteval.core.liveness import LATE_AFTER_SECONDS
from tests.acceptance.test_worker_operations import address, get
from tests.support.fault_evaluation import (
    begun_rows,
    check,
    let_go,
    longest_stop,
    reached,
    ready,
    submitted,
    write_evaluation,
)
from tests.support.fault_services import RedisServer
from tests.support.project import Project, wait_until
from tests.support.silent_connections import SilentNetwork, SilentProxy

# No row may begin for longer than this after a silence began.
RECOVERY_SECONDS = 30
ROWS = 600


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path.parent / f"{tmp_path.name}-redis", "--bind", "0.0.0.0", "--protected-mode", "no")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def proxy(project: Project, redis_server: RedisServer) -> Iterator[SilentProxy]:
    """The project's commands reach Redis by this."""
    with SilentProxy(redis_server.port) as proxy:
        project.environment["DOTEVAL_BROKER"] = f"redis://127.0.0.1:{proxy.port}/0"
        yield proxy


def recovers(project: Project, prefix: list[str], silence: Callable[[], int], *, times: int = 1) -> None:
    write_evaluation(project, rows=ROWS, seconds=0.5)
    with submitted(project, 2, prefix=prefix) as submitter:
        for number in range(times):
            reached(project, 100 + 150 * number)
            dropped = silence()
        longest = longest_stop(project, submitter, ROWS)
        assert submitter.wait(1) == 0, project.output()
    output = project.output()
    assert "has not answered this worker process" in output
    assert "the broker answers again" in output
    assert '"critical"' not in output
    found = check(project, "x", rows=ROWS, in_flight=0)
    print(f"{dropped} connections dropped; recovery {longest:.1f} s; duplicate executions {found.again}")
    assert longest < RECOVERY_SECONDS


def test_packets_of_open_connections_are_dropped(
    project: Project, redis_server: RedisServer, silent_network: SilentNetwork
) -> None:
    project.environment["DOTEVAL_BROKER"] = f"redis://{silent_network.server}:{redis_server.port}/0"
    recovers(project, silent_network.prefix, lambda: silent_network.silence(redis_server.port))


def test_open_connections_stay_and_carry_nothing(project: Project, proxy: SilentProxy) -> None:
    """As behind a proxy that has lost its server, twice: keepalive probes are answered."""
    recovers(project, [], proxy.silence, times=2)


def test_heartbeats_and_long_rows_go_on_meanwhile(project: Project, proxy: SilentProxy) -> None:
    """Rows that outlast the silence run once, and nobody takes their worker process for dead."""
    write_evaluation(project, rows=60, seconds=0.1, held=20)
    with submitted(project, 2) as submitter:
        reached(project, 20)
        wait_until(lambda: begun_rows(project) == 40, what="rows in flight in both processes")
        proxy.silence()
        silent = time.monotonic()
        latest = 0.0
        while project.output().count("the broker answers again") < 2:
            latest = max([latest, *(worker.age for worker in project.workers())])
            assert time.monotonic() - silent < RECOVERY_SECONDS, project.output()
            time.sleep(0.1)
        let_go(project)
        assert submitter.wait(120) == 0, project.output()
    print(f"oldest heartbeat {latest:.1f} s")
    assert latest < LATE_AFTER_SECONDS + 2
    check(project, "x", rows=60, in_flight=0)


@pytest.mark.parametrize("noticed", [False, True])
def test_a_service_leaves_while_its_broker_is_silent(
    project: Project, redis_server: RedisServer, proxy: SilentProxy, noticed: bool
) -> None:
    write_evaluation(project, rows=60, seconds=0.1, held=20)
    with project.started("worker", ".", "--processes", "2") as service:
        ready(project, 2)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        wait_until(lambda: begun_rows(project) == 40, what="rows in flight in both processes")
        if noticed:
            # New connections get no answer either.
            redis_server.pause()
            wait_until(lambda: project.output().count("has not answered") == 2, what="the notice")
        else:
            proxy.silence()
        service.send_signal(signal.SIGTERM)
        # The rows in flight end; no other begins.
        wait_until(lambda: all(each.state == "draining" for each in project.workers()), what="the signal")
        let_go(project)
        left = time.monotonic()
        assert service.wait(RECOVERY_SECONDS) == 0, project.output()
        print(f"left {time.monotonic() - left:.1f} s after the last row")
    redis_server.resume()
    assert project.counts()["-model"] == 2
    assert project.done() == begun_rows(project) == 40
    with project.started("worker", ".", "--processes", "1"):
        project.run("watch", "x")
    check(project, "x", rows=60, in_flight=0)


def test_a_silent_broker_is_seen(project: Project, redis_server: RedisServer) -> None:
    project.environment["DOTEVAL_BROKER"] = f"{redis_server.url}?socket_timeout=4"
    write_evaluation(project, rows=40, held=20)
    with project.started("worker", ".", "--processes", "1", "--health-port", "0"):
        ready(project, 1)
        base = address(project, "/health")
        assert get(f"{base}/ready")[0] == 200
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        reached(project, 20)
        # It answers nobody, and the kernel still accepts connections.
        redis_server.pause()
        wait_until(lambda: get(f"{base}/ready")[0] == 503, what="a service that is not ready")
        (process,) = json.loads(get(f"{base}/ready")[1])["processes"]
        assert (process["state"], process["broker_silent_seconds"] >= 4) == ("ready", True)
        shown = project.run("status", "x").stdout
        assert re.search(r"takes no row task: its broker has not answered it for \d+ s", shown), shown
        (worker,) = project.json("status", "x")["workers"]
        assert worker["broker_silent_seconds"] >= 4
        redis_server.resume()
        wait_until(lambda: get(f"{base}/ready")[0] == 200, what="a service that is ready again")
        let_go(project)
        project.run("watch", "x")
        assert "has not answered" not in project.run("status", "x").stdout
    assert project.output().count("has not answered this worker process") == 1
    assert project.output().count("the broker answers again") == 1
    check(project, "x", rows=40, in_flight=0)


def test_commands_say_that_their_broker_does_not_answer(project: Project, redis_server: RedisServer) -> None:
    project.environment["DOTEVAL_BROKER"] = f"{redis_server.url}?socket_timeout=2"
    write_evaluation(project, rows=2, seconds=0.0)
    with project.started("worker", ".", "--processes", "1", "--name", "gpu"):
        ready(project, 1)
        project.run("submit", "eval_it.py", "--experiment", "x")
        redis_server.pause()
        said = f"the broker {project.environment['DOTEVAL_BROKER']} does not answer: nothing came for 2 s"
        for words in (("submit", "eval_it.py", "--experiment", "y"), ("drain", "gpu")):
            ended = project.run(*words, check=3)
            assert said in ended.stderr
            assert "doteval docs cli#broker-urls" in ended.stderr
        assert said in project.run("doctor", check=1).stdout
        assert said in project.run("status", "x").stdout
        status = project.json("status", "x")
        assert (status["messages_queued"], said in status["broker_error"]) == (None, True)
        redis_server.resume()
