"""Measures the cost of the call journal: 100 rows at a time wait 0.1 s for a model, with the journal and without it."""

from __future__ import annotations

import json
from functools import partial

from benchmarks.bench import EVALUATIONS, Bench, project
from benchmarks.figures import shown
from benchmarks.subjects.latency import LATENCY, rate
from doteval.mock_openai import MockOpenAI

FILE = "eval_calls.py"
MODES = ("off", "usage", "full")
# A command with so few rows takes its start-up and its summary.
FEW = 100


def rate_with(bench: Bench, rows: int, mode: str) -> float:
    with project(EVALUATIONS / FILE) as directory:
        arguments = (FILE, "--experiment", "x", "--concurrent", "100", "--journal", mode)
        return rate(bench, rows, lambda given: bench.pytest(directory, *arguments, **given))


def processor_milliseconds(bench: Bench, rows: int, mode: str) -> float:
    """The processor time of a row with one call, without the server's."""

    def taken(count: int) -> float:
        with project(EVALUATIONS / FILE) as directory, MockOpenAI() as mock:
            arguments = (FILE, "--experiment", "x", "--concurrent", "100", "--journal", mode)
            given = {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "unused", "ROWS": str(count)}
            return bench.pytest(directory, *arguments, **given).cpu

    return (taken(rows + FEW) - taken(FEW)) / rows * 1000


def file_over_bodies(bench: Bench, rows: int) -> float:
    """The size of the journal in the SQLite file, as a multiple of the compressed requests and replies."""
    with project(EVALUATIONS / FILE) as directory, MockOpenAI() as mock:
        given = {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "unused", "ROWS": str(rows)}
        bench.pytest(directory, FILE, "--experiment", "x", "--concurrent", "100", **given)
        sizes = json.loads(bench.doteval(directory, "db", "size", "--json").output)
    return float(sizes["parts"]["journal"] / sizes["call_bytes"])


def measure(bench: Bench) -> None:
    rows = bench.rows(10_000)
    work = f"{shown(bench.seconds(LATENCY))} s a call, 100 at a time"
    rates = bench.compare(work, "rows/s", {f"journal {mode}": partial(rate_with, bench, rows, mode) for mode in MODES})
    bench.report.aim(
        work, "rows/s, journal full × off", rates["journal full"].median / rates["journal off"].median, 0.95
    )
    work = "a row with one call"
    times = bench.compare(
        work, "ms", {f"journal {mode}": partial(processor_milliseconds, bench, rows, mode) for mode in MODES}
    )
    over = times["journal full"].median / times["journal off"].median
    bench.report.aim(work, "processor time, journal full × off", over, 1.3, at_least=False)
    work = "10,000 calls of 1.3 KB"
    found = bench.compare(work, "× the compressed bodies", {"journal in SQLite": lambda: file_over_bodies(bench, rows)})
    bench.report.aim(work, "SQLite × the compressed bodies", found["journal in SQLite"].median, 1.5, at_least=False)
