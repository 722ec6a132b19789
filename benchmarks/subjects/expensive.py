"""A model that takes 5 s to load and 20 ms of a processor a row, on two worker processes.

It is compared with the least that two processors need, which is one load in each process and then half of the rows in
each; and with two plain processes that do only this, since a virtual machine does not always get all of its processors.
Measured are the whole command, which starts everything, and a running worker service: its load, plus the time from
submission to completion.
"""

from __future__ import annotations

from benchmarks.bench import EVALUATIONS, Bench, project
from benchmarks.figures import shown
from benchmarks.services import worker_service
from benchmarks.timeline import loads_of, timeline
from doteval.broker.embedded_redis import EmbeddedRedis

LOAD, CPU = 5.0, 0.020


def measure(bench: Bench) -> None:
    rows = bench.rows(2_000)
    load, cpu = bench.seconds(LOAD), bench.seconds(CPU)
    work = f"{shown(load)} s to load, {shown(cpu * 1000)} ms of a processor a row, two worker processes"
    least = load + rows * cpu / 2
    bench.report.add(work, "the least", "s", [least])
    bare: list[float] = []
    whole: list[float] = []
    warm: list[float] = []
    loads: list[int] = []
    given = {"ROWS": str(rows), "LOAD": str(load), "CPU": str(cpu)}
    for _ in range(bench.repeat):
        both = bench.two_peers("doteval", "expensive_bare.py", **{**given, "ROWS": str(rows // 2)})
        bare.append(max(one.seconds for one in both))
        with project(EVALUATIONS / "eval_expensive.py") as directory:
            storage = f"sqlite:///{directory / 'own.db'}"
            taken = bench.doteval(
                directory, "submit", "eval_expensive.py", "--experiment", "x", DOTEVAL_STORAGE=storage, **given
            )
            whole.append(taken.seconds)
            loads.append(loads_of(storage, "model"))
        with project(EVALUATIONS / "eval_expensive.py") as directory, EmbeddedRedis() as server:
            storage = f"sqlite:///{directory / 'own.db'}"
            elsewhere = {"DOTEVAL_BROKER": server.url, "DOTEVAL_STORAGE": storage, **given}
            with worker_service(directory, elsewhere):
                bench.doteval(directory, "submit", "eval_expensive.py", "--experiment", "x", **elsewhere)
            times = timeline(storage, "x")
            # The service had loaded the model before the submission.
            warm.append(load + times.completed - times.created)
    plain = bench.report.add(work, "two plain processes", "s", bare)
    started = bench.report.add(work, "doteval submit, the whole command", "s", whole)
    served = bench.report.add(work, "a worker service: load, and submitted to completed", "s", warm)
    bench.report.add(work, "loads of the model", "", [float(count) for count in loads])
    bench.report.aim(work, "× the least, the whole command", started.median / least, 1.1, at_least=False)
    bench.report.aim(work, "× the least, worker service", served.median / least, 1.1, at_least=False)
    bench.report.aim(work, "× two plain processes, worker service", served.median / plain.median, 1.1, at_least=False)
    bench.report.aim(work, "loads", max(loads), 2, at_least=False)
