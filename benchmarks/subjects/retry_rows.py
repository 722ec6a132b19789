"""`doteval retry` of the failed tenth of 10,000 rows that do nothing: its cost beyond the rows' own time.

The whole command is measured, with the interpreter's start, and its parts: until the first row begins, from there to
the end of the last row, and from there to the end of the command. A retry that finds nothing to run costs its start-up
and its query. Each is measured with a ready worker service, and with Redis and worker processes to be started.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import EVALUATIONS, Bench, project
from benchmarks.services import worker_service
from benchmarks.timeline import timeline
from doteval.broker.embedded_redis import EmbeddedRedis

WORK = "retry of the failed tenth of 10,000 rows"
PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of the whole command beyond the rows' own time, and of its parts."""

    beyond: float
    until_first: float
    rows: float
    after_last: float
    nothing: float


def measure(bench: Bench) -> None:
    rows = str(bench.rows(10_000))
    warm: list[Taken] = []
    cold: list[Taken] = []
    for _ in range(bench.repeat):
        with project(EVALUATIONS / "eval_flaky.py") as directory, EmbeddedRedis() as server:
            given = {"DOTEVAL_BROKER": server.url, **_settings(directory, rows)}
            with worker_service(directory, given, processes=PROCESSES):
                warm.append(_retry(bench, directory, given))
        with project(EVALUATIONS / "eval_flaky.py") as directory:
            cold.append(_retry(bench, directory, _settings(directory, rows)))
    for way, taken in (("a waiting worker service", warm), ("everything to be started", cold)):
        for part, values in (
            ("beyond the rows' own time", [each.beyond for each in taken]),
            ("until the first row began", [each.until_first for each in taken]),
            ("from there to the end of the last row", [each.rows for each in taken]),
            ("from there to the command's end", [each.after_last for each in taken]),
            ("a retry of nothing", [each.nothing for each in taken]),
        ):
            figure = bench.report.add(WORK, f"{way}: {part}", "s", values)
            if way.startswith("a waiting") and part.startswith("beyond"):
                what = "worker service, beyond the rows' own time, s"
                bench.report.aim(WORK, what, figure.median, bench.seconds(1), at_least=False)


def _settings(directory: Path, rows: str) -> dict[str, str]:
    return {"DOTEVAL_STORAGE": f"sqlite:///{directory / 'own.db'}", "ROWS": rows}


def _retry(bench: Bench, directory: Path, given: Mapping[str, str]) -> Taken:
    broken = directory / "broken"
    broken.touch()
    bench.doteval(directory, "submit", "eval_flaky.py", "--experiment", "x", **given)
    broken.unlink()
    began = time.time()
    whole = bench.doteval(directory, "retry", "x", **given).seconds
    times = timeline(given["DOTEVAL_STORAGE"], "x", since=began)
    if times.rows != int(given["ROWS"]) // 10:
        raise RuntimeError(f"{times.rows} rows were run again")
    nothing = bench.doteval(directory, "retry", "x", **given).seconds
    return Taken(
        whole - times.own / PROCESSES,
        times.first_began - began,
        times.last_ended - times.first_began,
        began + whole - times.last_ended,
        nothing,
    )
