"""The time until the first row's result, with a ready worker service and with everything to be started.

It is measured from the start of the command, which includes the interpreter's start and all imports, and from the
moment when the experiment is in the store. The whole command for such a small submission is measured too.
"""

from __future__ import annotations

import time

from benchmarks.bench import EVALUATIONS, Bench, project
from benchmarks.services import worker_service
from benchmarks.timeline import timeline
from doteval.broker.embedded_redis import EmbeddedRedis

WORK = "the first row's result"


def measure(bench: Bench) -> None:
    submitted: list[float] = []
    warm: list[float] = []
    cold: list[float] = []
    whole: list[float] = []
    for _ in range(bench.repeat):
        with project(EVALUATIONS / "eval_noop.py") as directory, EmbeddedRedis() as server:
            storage = f"sqlite:///{directory / 'own.db'}"
            given = {"DOTEVAL_BROKER": server.url, "DOTEVAL_STORAGE": storage, "ROWS": "100"}
            with worker_service(directory, given):
                # The first submission makes the service import what it imports lazily.
                for name in ("first", "second"):
                    began = time.time()
                    bench.doteval(directory, "submit", "eval_noop.py", "--experiment", name, **given)
            times = timeline(storage, "second")
            submitted.append(times.first_ended - times.created)
            warm.append(times.first_ended - began)
        with project(EVALUATIONS / "eval_noop.py") as directory:
            storage = f"sqlite:///{directory / 'own.db'}"
            began = time.time()
            command = ("submit", "eval_noop.py", "--experiment", "x", "--workers", "2")
            whole.append(bench.doteval(directory, *command, DOTEVAL_STORAGE=storage, ROWS="100").seconds)
            cold.append(timeline(storage, "x").first_ended - began)
    figure = bench.report.add(WORK, "a waiting worker service, since it was submitted", "s", submitted)
    bench.report.add(WORK, "a waiting worker service, since the command's start", "s", warm)
    from_nothing = bench.report.add(WORK, "with Redis and worker processes to be started", "s", cold)
    bench.report.add(WORK, "the same, the whole command for 100 rows", "s", whole)
    bench.report.aim(WORK, "worker service, since submitted, s", figure.median, bench.seconds(0.5), at_least=False)
    bench.report.aim(WORK, "from nothing, s", from_nothing.median, bench.seconds(3), at_least=False)
