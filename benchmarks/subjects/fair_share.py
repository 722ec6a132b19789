"""A small experiment behind a million rows: the time of its first result, and its share of all results.

Rows take 0.1 s on a worker service of two processes, which runs the million rows before and meanwhile.
"""

from __future__ import annotations

import time

from benchmarks.bench import EVALUATIONS, Bench, project
from benchmarks.services import worker_service
from benchmarks.timeline import timeline
from doteval.broker.embedded_redis import EmbeddedRedis

SMALL, LARGER = 200, 2_000


def measure(bench: Bench) -> None:
    behind = bench.rows(1_000_000)
    work = f"rows of 0.1 s behind {behind:,} others, two worker processes"
    first: dict[int, list[float]] = {SMALL: [], LARGER: []}
    shares: dict[int, list[float]] = {SMALL: [], LARGER: []}
    with project(EVALUATIONS / "eval_sleep.py") as directory, EmbeddedRedis() as server:
        storage = f"sqlite:///{directory / 'own.db'}"
        given = {"DOTEVAL_BROKER": server.url, "DOTEVAL_STORAGE": storage, "ROWS": str(behind)}
        submit = ("submit", "eval_sleep.py", "--experiment")
        with worker_service(directory, given):
            bench.doteval(directory, *submit, "many", "--detach", **given)
            for number in range(bench.repeat):
                for rows in (SMALL, LARGER):
                    name = f"{rows} rows, {number}"
                    typed = time.time()
                    bench.doteval(directory, *submit, name, **{**given, "ROWS": str(rows)})
                    times = timeline(storage, name)
                    others = timeline(storage, "many", since=times.created, until=times.last_ended)
                    first[rows].append(times.first_ended - typed)
                    shares[rows].append(times.rows / (times.rows + others.rows))
    for rows in (SMALL, LARGER):
        figure = bench.report.add(work, f"{rows:,} rows: first result, since the command's start", "s", first[rows])
        bench.report.aim(work, f"{rows:,} rows: first result, s", figure.median, bench.seconds(5), at_least=False)
        bench.report.add(work, f"{rows:,} rows: share of all results while they ran", "", shares[rows])
