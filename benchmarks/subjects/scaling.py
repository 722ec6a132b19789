"""Calculates what 100 million rows on 1,000 worker processes would need, from values measured on this machine.

Measured are the tasks a second of one publisher, the bytes of a queued task in Redis, the results a second that several
writers store in PostgreSQL in groups of several sizes, and the bytes of a row and its result in the store. From these
and the constants of doteval follow the load on each part of a deployment and the part that is the first to be
overloaded. The calculation is checked against a submission on two worker processes.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

import psycopg
import redis

from benchmarks.bench import Bench
from benchmarks.servers import postgres
from benchmarks.subjects.submit_rows import rate_of_doteval_on_postgres
from doteval.broker.embedded_redis import EmbeddedRedis
from doteval.broker.messages import RowTask
from doteval.broker.publisher import Publisher
from doteval.coordination.dispatcher import MOST_QUEUED
from doteval.coordination.task_sizing import task_size
from doteval.core.broker_url import Broker
from doteval.core.experiments import EvaluationSpec
from doteval.core.liveness import BEAT_SECONDS
from doteval.core.results import Outcome, Row, RowStatus, Score, Usage
from doteval.store import NewResult, Store
from doteval.supervision.worker_config import slots_for

WORK = "calculated: 100 million rows, 1,000 worker processes"
ROWS, PROCESSES = 100_000_000, 1_000
SLOTS = slots_for(None)
# As long as in a real call: half a kilobyte of prompt, and as much of response.
TEXT = "lorem ipsum dolor sit " * 24


@dataclass(frozen=True, slots=True)
class Points:
    """The values measured on this machine."""

    tasks_published: float
    bytes_queued: float
    groups_of_one: float
    rows_in_groups: float
    bytes_stored: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """Worker processes that have `in_flight` rows at a time, each of which takes `seconds`."""

    seconds: float
    in_flight: int

    @property
    def rows_a_second(self) -> float:
        return PROCESSES * self.in_flight / self.seconds

    @property
    def rows_a_task(self) -> int:
        return task_size(ROWS, self.seconds, slots=SLOTS, at_once=[self.in_flight] * PROCESSES, pull_based=True).rows


def measure(bench: Bench) -> None:
    points = measured_points(bench)
    for fleet in (Fleet(10.0, 10), Fleet(1.0, 10), Fleet(1.0, 50)):
        calculate(bench, points, fleet)
    rows = bench.rows(100_000)
    rates = [rate_of_doteval_on_postgres(bench, rows) for _ in range(bench.repeat)]
    bench.report.add("check of the calculation", f"doteval submit, {rows:,} rows, two processes", "rows/s", rates)
    bench.report.add("check of the calculation", "what its store could take", "rows/s", [points.rows_in_groups])


def measured_points(bench: Bench) -> Points:
    work = "points for the calculation"
    with EmbeddedRedis() as server:
        publisher = Publisher(Broker(server.url), "bench")
        publisher.connect()
        tasks = bench.rows(10_000)
        path = server.url.removeprefix("redis+socket://").partition("?")[0]
        with redis.Redis(unix_socket_path=path) as client:
            before = client.info("memory")["used_memory"]
            began = time.perf_counter()
            publisher.publish(
                (RowTask("0" * 32, 10 * task, 10 * task + 9) for task in range(tasks)), experiment="x", evaluation="y"
            )
            published = tasks / (time.perf_counter() - began)
            queued = (client.info("memory")["used_memory"] - before) / tasks
        publisher.close()
    bench.report.add(work, "one publisher", "tasks/s", [published])
    bench.report.add(work, "a queued task in Redis", "bytes", [queued])
    groups = {group: _stored(group, bench.rows(count)) for group, count in ((1, 4_000), (10, 20_000), (500, 60_000))}
    for group, (rate, _) in groups.items():
        bench.report.add(work, f"PostgreSQL, two writers, groups of {group}", "rows/s", [rate])
    size = groups[500][1]
    bench.report.add(work, "a row and its result in PostgreSQL", "bytes", [size])
    return Points(published, queued, groups[1][0], groups[500][0], size)


def _stored(group: int, count: int) -> tuple[float, float]:
    """The results a second that two writers store in groups of that size, and the bytes of a row."""
    outcome = Outcome(
        RowStatus.DONE,
        time.time(),
        1.0,
        (Score("exact_match", True, ("accuracy",)),),
        prompt=TEXT,
        model_response=TEXT,
        usage=(Usage("m", requests=1, attempts=1, prompt_tokens=100, completion_tokens=100, seconds=1.0),),
    )
    with postgres() as url, Store.open(url) as store:
        spec = EvaluationSpec("eval_x.py", "eval_x", ("text",), {"eval_x.py": "1"})
        evaluation = store.evaluations.begin(store.experiments.begin("x"), spec)
        rows = [Row(index, f"{index:032}", {"text": TEXT}) for index in range(count)]
        for first in range(0, count, 1_000):
            store.rows.add(evaluation.id, rows[first : first + 1_000])

        def write(part: list[Row]) -> None:
            for first in range(0, len(part), group):
                some = part[first : first + group]
                store.results.write([NewResult(evaluation.id, row, outcome) for row in some], None)

        halves = [threading.Thread(target=write, args=[half]) for half in (rows[: count // 2], rows[count // 2 :])]
        began = time.perf_counter()
        for half in halves:
            half.start()
        for half in halves:
            half.join()
        rate = count / (time.perf_counter() - began)
        with psycopg.connect(url) as connection:
            query = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables"
            (size,) = connection.execute(query).fetchone() or (0,)
    return rate, float(size) / count


def calculate(bench: Bench, points: Points, fleet: Fleet) -> None:
    """Calculate the load of the fleet on each part of a deployment whose database is as fast as this machine's.

    A writer commits the results that have arrived during the previous commit: the slower the database, the larger the
    groups, and the longer a result waits for its commit. With groups of g rows the store is busy for a share of
    rows/s × (cost of a row + cost of a transaction / g); it keeps up as long as that is at most 1.
    """
    way = f"{fleet.in_flight} in flight of {fleet.seconds:g} s"
    rows, tasks = fleet.rows_a_second, fleet.rows_a_second / fleet.rows_a_task
    row = 1 / points.rows_in_groups
    transaction = 1 / points.groups_of_one - row
    group = max(1.0, rows * transaction / (1 - rows * row)) if rows * row < 1 else math.inf

    def add(name: str, unit: str, value: float) -> None:
        bench.report.add(WORK, f"{way}: {name}", unit, [value])

    add("rows", "rows/s", rows)
    add("duration", "h", ROWS / rows / 3600)
    add("messages", "millions", ROWS / fleet.rows_a_task / 1e6)
    add("publisher: share of its rate", "", tasks / points.tasks_published)
    add("Redis: queued and held", "MB", (MOST_QUEUED + PROCESSES * SLOTS) * points.bytes_queued / 1e6)
    add("store: share of its rate in large groups", "", rows * row)
    add("store: rows a group to keep up", "rows", group)
    add("store: a result waits for its commit", "s", group / (rows / PROCESSES))
    add("store: size", "GB", ROWS * points.bytes_stored / 1e9)
    add("store: heartbeats", "statements/s", PROCESSES / BEAT_SECONDS)
