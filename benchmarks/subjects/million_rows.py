"""A million rows of a kilobyte: the memory of the submitter and of Redis, and whether time grows in proportion.

There are two worker processes, PostgreSQL, and a Redis whose peak is read at the end. Then commands on the finished
experiment are measured: ``status``, ``show``, and submitting it again. The rows are in a file: when it is submitted
again, only its hash is computed, while a generator would be read again.
"""

from __future__ import annotations

from pathlib import Path

import redis

from benchmarks.bench import EVALUATIONS, Bench, project
from benchmarks.servers import postgres
from benchmarks.services import worker_service
from benchmarks.timeline import timeline
from doteval.broker.embedded_redis import EmbeddedRedis

WORK = "rows of 1 KB, two worker processes, PostgreSQL"


def measure(bench: Bench) -> None:
    rates = [_measure(bench, rows) for rows in (bench.rows(100_000), bench.rows(1_000_000))]
    bench.report.aim(WORK, "rate at most rows / at fewest", rates[1] / rates[0], 0.9)


def write_rows(path: Path, rows: int) -> None:
    """Rows of about 1,000 characters, as JSON lines."""
    with path.open("w") as file:
        for number in range(rows):
            file.write(f'{{"number": {number}, "text": "{number:010} {"lorem ipsum " * 84}"}}\n')


def _measure(bench: Bench, rows: int) -> float:
    """Measure with so many rows. Returns the rows a second from the start of the evaluation to its completion."""
    report = bench.report
    submit = ("submit", "eval_kilobyte.py", "--experiment", "many")
    with (
        project(EVALUATIONS / "eval_kilobyte.py") as directory,
        postgres() as storage,
        EmbeddedRedis() as server,
    ):
        write_rows(directory / "rows.jsonl", rows)
        given = {"DOTEVAL_BROKER": server.url, "DOTEVAL_STORAGE": storage}
        with worker_service(directory, given):
            taken = bench.doteval(directory, *submit, **given)
        times = timeline(storage, "many")
        with redis.Redis(unix_socket_path=server.url.removeprefix("redis+socket://").partition("?")[0]) as client:
            redis_peak = client.info("memory")["used_memory_peak"] / 1e6
        rate = times.rows / (times.completed - times.created)
        way = f"doteval submit, {rows:,} rows"
        report.add(WORK, way, "rows/s", [rate])
        report.add(WORK, f"{way}: memory of the submitter", "MB", [taken.peak])
        report.add(WORK, f"{way}: memory of Redis", "MB", [redis_peak])
        afterwards = {"status": ("status", "many"), "show": ("show", "many"), "submit again": submit}
        for name, arguments in afterwards.items():
            seconds = [bench.doteval(directory, *arguments, **given).seconds for _ in range(bench.repeat)]
            figure = report.add(WORK, f"{name} afterwards, {rows:,} rows", "s", seconds)
            if rows >= 1_000_000:
                report.aim(WORK, f"{name} afterwards, s", figure.median, bench.seconds(3), at_least=False)
        report.aim(WORK, f"submitter at {rows:,} rows, MB", taken.peak, 200, at_least=False)
        report.aim(WORK, f"Redis at {rows:,} rows, MB", redis_peak, 100, at_least=False)
        return rate
