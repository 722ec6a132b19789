"""The memory of `doteval flower` while it receives the events of 200,000 row tasks.

Events are sent as fast as Flower takes them, by its own count. The figures are peaks of its resident memory.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator

from benchmarks.bench import Bench, project
from benchmarks.commands import peak_of
from benchmarks.environments import python_of
from doteval.broker.celery_app import celery_app
from doteval.broker.embedded_redis import EmbeddedRedis
from doteval.core.broker_url import Broker

WORK = "doteval flower, 200,000 row tasks"
_AT_ONCE = 1_000
# Series of Flower's own metrics.
_ONLINE = r"flower_worker_online\{.*\}"
_SUCCEEDED = r'flower_events_total\{.*type="task-succeeded".*\}'


def measure(bench: Bench) -> None:
    tasks = bench.rows(200_000)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with project() as directory, EmbeddedRedis() as server:
        command = [python_of("doteval"), "-m", "doteval", "flower", "--broker", server.url, "--port", str(port)]
        with (directory / "output.txt").open("wb") as output:
            flower = subprocess.Popen(command, cwd=directory, stdout=output, stderr=output)
        try:
            peaks = {sent: peak_of(flower.pid) for sent in _send(server.url, tasks, port)}
        finally:
            flower.terminate()
            flower.wait(30)
    for sent, peak in peaks.items():
        if sent % (tasks // 4) == 0:
            bench.report.add(WORK, f"memory after {sent:,}", "MB", [peak])
    bench.report.aim(WORK, "memory, MB", peaks[tasks], 400, at_least=False)


def _send(broker: str, tasks: int, port: int) -> Iterator[int]:
    """Send the events of so many row tasks. Yields, now and then, the number of tasks that Flower has counted."""
    app = celery_app(Broker(broker), "doteval")
    with app.connection_for_write() as connection:
        dispatcher = app.events.Dispatcher(connection, hostname="worker-1@host")
        # Flower answers requests before it receives events, and events until then are lost.
        _wait_for(port, _ONLINE, 1, lambda: dispatcher.send("worker-online"))
        yield 0
        for first in range(0, tasks, _AT_ONCE):
            after = min(first + _AT_ONCE, tasks)
            for number in range(first, after):
                name = str(uuid.uuid4())
                rows = f"r{100 * number}-{100 * number + 99} demo"
                dispatcher.send("task-received", uuid=name, name="eval_arithmetic", args=rows, kwargs="", retries=0)
                dispatcher.send("task-started", uuid=name)
                dispatcher.send("task-succeeded", uuid=name, result="'100 rows, 2 failed, 41 k tokens'", runtime=2.5)
            _wait_for(port, _SUCCEEDED, after)
            yield after


def _counted(port: int, series: str) -> int:
    """The sum of Flower's series that match; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
            text = reply.read().decode()
    except OSError:
        return 0
    found = re.findall(rf"^{series} (\S+)$", text, re.MULTILINE)
    return int(sum(float(number) for number in found))


def _wait_for(port: int, series: str, count: int, before_each_try: Callable[[], object] = lambda: None) -> None:
    """Wait until Flower has counted exactly `count`."""
    deadline = time.monotonic() + 120
    while True:
        before_each_try()
        if _counted(port, series) == count:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"Flower has not counted {count} of {series}")
        time.sleep(0.05)
