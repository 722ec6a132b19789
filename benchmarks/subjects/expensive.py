"""A model that takes 5 s to load and 20 ms of a processor a row, on two worker processes.

Beside it the least that two processors can do: load once in each process, then half of the rows in each; and what two
plain processes take that do this and nothing else, since a virtual machine is not given all of its processors. What
is compared is the whole command, which starts everything, and a worker service's load with what comes after it, from
submitted to completed.
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
            # The service had loaded before.
            warm.append(load + times.completed - times.created)
    plain = bench.report.add(work, "two plain processes", "s", bare)
    started = bench.report.add(work, "doteval submit, the whole command", "s", whole)
    served = bench.report.add(work, "a worker service: load, and submitted to completed", "s", warm)
    bench.report.add(work, "loads of the model", "", [float(count) for count in loads])
    bench.report.aim(work, "× the least, the whole command", started.median / least, 1.1, at_least=False)
    bench.report.aim(work, "× the least, worker service", served.median / least, 1.1, at_least=False)
    bench.report.aim(work, "× two plain processes, worker service", served.median / plain.median, 1.1, at_least=False)
    bench.report.aim(work, "loads", max(loads), 2, at_least=False)
