"""PostgreSQL goes silent: its connections carry nothing any more, or it accepts new ones and never answers."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from doteval.store.url import locate
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
from tests.support.fault_services import PostgresServer, RedisServer
from tests.support.postgres_proxy import address_of, by_way_of
from tests.support.project import Project, wait_until
from tests.support.silent_connections import SilentNetwork, SilentProxy

# No row may begin for longer than this after a silence began.
RECOVERY_SECONDS = 30
ROWS = 600


def warnings(project: Project) -> Counter[int]:
    """How many warnings and errors each worker process has logged."""
    lines = [json.loads(line) for line in project.output().splitlines() if line.startswith("{")]
    return Counter(line["process"] for line in lines if line["level"] != "info")


def recovers(project: Project, prefix: list[str], silence: Callable[[], int], direct: str) -> None:
    write_evaluation(project, rows=ROWS, seconds=0.5)
    dropped = 0
    with submitted(project, 2, prefix=prefix) as submitter:
        for number in range(2):
            reached(project, 100 + 200 * number)
            dropped += silence()
        longest = longest_stop(project, submitter, ROWS)
        assert submitter.wait(1) == 0, project.output()
    project.environment["DOTEVAL_STORAGE"] = direct
    found = check(project, "x", rows=ROWS, in_flight=0)
    print(f"{dropped} connections dropped; recovery {longest:.1f} s; duplicate executions {found.again}")
    assert longest < RECOVERY_SECONDS
    assert all(number <= 2 for number in warnings(project).values()), project.output()


def test_packets_of_open_connections_are_dropped(
    project: Project, broker: RedisServer, postgres: PostgresServer, silent_network: SilentNetwork
) -> None:
    # The proxy is the server's address in the network. Its own connections stay, with the locks of their sessions.
    with SilentProxy(address_of(postgres.url), host=silent_network.server) as proxy:
        project.environment["DOTEVAL_STORAGE"] = by_way_of(proxy, postgres.url, host=silent_network.server)
        # Redis is reached by the same network, and is not silent.
        with SilentProxy(broker.port, host=silent_network.server) as redis:
            project.environment["DOTEVAL_BROKER"] = f"redis://{silent_network.server}:{redis.port}/0"
            recovers(project, silent_network.prefix, lambda: silent_network.silence(proxy.port), postgres.url)


def test_open_connections_stay_and_carry_nothing(
    project: Project, broker: RedisServer, postgres: PostgresServer
) -> None:
    with SilentProxy(address_of(postgres.url)) as proxy:
        project.environment["DOTEVAL_STORAGE"] = by_way_of(proxy, postgres.url)
        recovers(project, [], proxy.silence, postgres.url)


@contextmanager
def silent(proxy: SilentProxy) -> Iterator[None]:
    """A server that accepts connections inside the block and never answers, also on those that are open."""
    before = proxy.server
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        proxy.server = frozen.getsockname()[1]
        proxy.silence()
        yield
        proxy.server = before


def test_a_service_leaves_while_its_store_is_silent(
    project: Project, broker: RedisServer, postgres: PostgresServer
) -> None:
    """What it has computed and cannot store runs again; the process says how much that is."""
    project.environment["DOTEVAL_TEARDOWN_TIMEOUT"] = "5"
    write_evaluation(project, rows=60, seconds=0.1, held=20)
    direct = project.environment["DOTEVAL_STORAGE"]
    with SilentProxy(address_of(postgres.url)) as proxy:
        project.environment["DOTEVAL_STORAGE"] = by_way_of(proxy, postgres.url)
        with project.started("worker", ".", "--processes", "2") as service:
            ready(project, 2)
            project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
            wait_until(lambda: begun_rows(project) == 40, what="rows in flight in both processes")
            with silent(proxy):
                let_go(project)
                wait_until(lambda: sum(event.what.startswith("end ") for event in project.events()) >= 40)
                left = time.monotonic()
                service.send_signal(signal.SIGTERM)
                code = service.wait(120)
                print(f"left after {time.monotonic() - left:.1f} s with exit code {code}")
    project.environment["DOTEVAL_STORAGE"] = direct
    output = project.output()
    print(output)
    lost = [int(number) for number in re.findall(r"(\d+) results could not be stored within 5 s; this worker", output)]
    assert len(lost) == 2
    assert sum(lost) == begun_rows(project) - project.done()
    assert output.count("left with exit code 4") == 0
    assert "the ends of 2 worker processes cannot be recorded: the store is away" in output
    with project.started("worker", ".", "--processes", "1"):
        project.run("watch", "x")
    check(project, "x", rows=60, in_flight=sum(lost))


def test_commands_end_and_name_a_silent_store(project: Project, broker: RedisServer, postgres: PostgresServer) -> None:
    write_evaluation(project, rows=40, seconds=0.1, held=20)
    direct = project.environment["DOTEVAL_STORAGE"]
    with SilentProxy(address_of(postgres.url)) as proxy:
        url = by_way_of(proxy, postgres.url, answer_timeout="2", connect_timeout="2")
        project.environment["DOTEVAL_STORAGE"] = url
        words = f"the result store {locate(url).shown} cannot be reached"
        with (
            project.started("worker", ".", "--processes", "1", "--health-port", "0"),
            project.started("metrics", "--port", "0"),
        ):
            ready(project, 1)
            health = address(project, "/health")
            figures = wait_until(lambda: re.search(r"Figures on (http://\S+)", project.output()), what="metrics")[1]
            assert (get(f"{health}/ready")[0], get(figures)[0]) == (200, 200)
            with project.started("submit", "eval_it.py", "--experiment", "x") as submitter:
                reached(project, 20)
                with project.started("watch", "x") as watcher:
                    wait_until(lambda: "eval_steady: 20/40 rows" in project.output(), what="the watcher's first look")
                    with silent(proxy):
                        for command in ("show x", "status x", "list", "watch x", "usage x", "submit eval_it.py"):
                            done = project.run(*command.split(), check=4)
                            assert words in done.stderr, command
                        for asked in (f"{health}/ready", figures):
                            status, said = get(asked)
                            assert (status, words in said) == (503, True)
                        wait_until(lambda: project.output().count(f"{words}: ") == 3, what="3 processes say it")
                    let_go(project)
                    assert submitter.wait(120) == 0, project.output()
                    assert watcher.wait(120) == 0, project.output()
    project.environment["DOTEVAL_STORAGE"] = direct
    # The submitter and the watcher have said it once, and the worker process too.
    assert project.output().count(f"{words}: ") == 3
    check(project, "x", rows=40, in_flight=0)
