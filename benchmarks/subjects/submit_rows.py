"""Rows that do nothing, on two worker processes with a private Redis, beside raw Celery.

The rates of doteval are rows divided by the wall time of the whole command, with the start of Redis and of the worker
processes. Raw Celery has one task a row and workers that are ready; it is measured from the start of the publisher to
the empty queue. Two independent `pytest` commands at once show what the machine can do with two processes. For each
way, the processor time shows how much of two processors it uses.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import redis

from benchmarks.bench import EVALUATIONS, PEERS, Bench, Way, project
from benchmarks.commands import processor_seconds
from benchmarks.environments import python_of
from benchmarks.servers import postgres
from benchmarks.subjects.local_rows import rate_of_doteval
from doteval.broker.embedded_redis import EmbeddedRedis

WORK = "no-op rows, two worker processes"


def rate_of_doteval_submit(bench: Bench, rows: int, storage: str = "") -> float:
    given = {"DOTEVAL_STORAGE": storage} if storage else {}
    with project(EVALUATIONS / "eval_noop.py") as directory:
        taken = bench.doteval(
            directory, "submit", "eval_noop.py", "--experiment", "noop", "--workers", "2", ROWS=str(rows), **given
        )
    return rows / taken.seconds


def rate_of_doteval_on_postgres(bench: Bench, rows: int) -> float:
    with postgres() as url:
        return rate_of_doteval_submit(bench, rows, url)


def rate_of_two_pytests(bench: Bench, rows: int) -> float:
    """Two commands with half of the rows each. The rate is that of all rows in the time of the slower command."""
    with ThreadPoolExecutor(2) as pool:
        rates = pool.map(lambda _: rate_of_doteval(bench, rows // 2), range(2))
        return 2 * min(rates)


def rate_of_raw_celery(rows: int) -> float:
    with (
        project(PEERS / "raw_celery.py") as directory,
        EmbeddedRedis() as server,
        raw_workers(directory, server.url, processes=2),
    ):
        code = (
            "import os, raw_celery\nfor number in range(int(os.environ['ROWS'])):\n    raw_celery.noop.delay(number)\n"
        )
        began = time.perf_counter()
        subprocess.run(
            [python_of("doteval"), "-c", code],
            cwd=directory,
            env={**os.environ, "BROKER": server.url, "ROWS": str(rows)},
            check=True,
        )
        wait_until_empty(server.url)
        return rows / (time.perf_counter() - began)


@contextmanager
def raw_workers(directory: Path, broker: str, *, processes: int) -> Iterator[None]:
    """Workers of plain Celery, with threads like those of doteval. They are ready when the block begins."""
    command = [python_of("doteval"), "-m", "celery", "-A", "raw_celery", "worker", "--pool", "threads", "-c", "12"]
    command += ["--without-gossip", "--without-mingle", "--task-events", "--loglevel", "INFO"]
    logs = [directory / f"worker-{number}.log" for number in range(processes)]
    workers = [
        subprocess.Popen(
            [*command, "-n", f"raw{number}@%h"],
            cwd=directory,
            env={**os.environ, "BROKER": broker},
            stdout=subprocess.DEVNULL,
            stderr=log.open("wb"),
        )
        for number, log in enumerate(logs)
    ]
    try:
        while not all(" ready." in log.read_text() for log in logs):
            if any(worker.poll() is not None for worker in workers):
                raise RuntimeError(f"a worker of raw Celery ended: {[log.read_text()[-500:] for log in logs]}")
            time.sleep(0.05)
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


def wait_until_empty(broker: str) -> None:
    """Wait until no task is queued or unacknowledged."""
    path = broker.removeprefix("redis+socket://").partition("?")[0]
    with redis.Redis(unix_socket_path=path) as client:
        while client.llen("celery") or client.hlen("unacked"):
            time.sleep(0.01)


def with_processor(way: Way, seconds: list[float]) -> Way:
    """The way, with its processor seconds appended to `seconds` each time."""

    def measured() -> float:
        before = processor_seconds()
        value = way()
        seconds.append(processor_seconds() - before)
        return value

    return measured


def measure(bench: Bench) -> None:
    rows = bench.rows(100_000)
    raw = bench.rows(20_000)
    submit = f"doteval submit, {rows:,} rows, SQLite"
    ways: dict[str, Way] = {
        submit: partial(rate_of_doteval_submit, bench, rows),
        f"doteval submit, {rows:,} rows, PostgreSQL": partial(rate_of_doteval_on_postgres, bench, rows),
        f"pytest with doteval, {rows:,} rows, SQLite": partial(rate_of_doteval, bench, rows),
        f"two pytest with doteval at once, {rows // 2:,} rows each": partial(rate_of_two_pytests, bench, rows),
        f"raw Celery, {raw:,} rows, nothing stored": partial(rate_of_raw_celery, raw),
    }
    # Make the environment before anything is measured.
    python_of("doteval")
    # In the other ways, processes run that no command waits for, such as servers, and their time is not counted.
    processor: dict[str, list[float]] = {way: [] for way in ways if "pytest" in way or way == submit}
    counted = {way: with_processor(measure, processor[way]) for way, measure in ways.items() if way in processor}
    found = bench.compare(WORK, "rows/s", ways | counted)
    for way, seconds in processor.items():
        bench.report.add(WORK, f"{way}: processor", "s", seconds)
        busy = [took * rate / rows / 2 for took, rate in zip(seconds, found[way].values, strict=True)]
        bench.report.add(WORK, f"{way}: share of two processors", "", busy)
    sqlite, on_postgres, local, _, celery = (figure.median for figure in found.values())
    bench.report.aim(WORK, "rows/s, SQLite", sqlite, bench.rate(12_000))
    bench.report.aim(WORK, "rows/s, PostgreSQL", on_postgres, bench.rate(12_000))
    bench.report.aim(WORK, "× pytest with doteval", sqlite / local, 1.5)
    bench.report.aim(WORK, "× raw Celery", sqlite / celery, 6)
