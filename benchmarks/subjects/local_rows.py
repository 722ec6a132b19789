"""Rows that do nothing, in one process: ``pytest eval_noop.py`` beside the same in other runners.

Rates are rows divided by the wall time of the whole command, with start-up and summary. Each way has so many rows that
it takes some ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from benchmarks.bench import EVALUATIONS, PEERS, Bench, project
from benchmarks.timeline import timeline

WORK = "no-op rows, one process"


@dataclass(slots=True)
class Details:
    """Peaks of memory in MB and rates without start-up, of the repeated measurements."""

    peaks: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def rate_of_doteval(bench: Bench, rows: int, details: Details | None = None) -> float:
    """The rows a second of ``pytest`` with SQLite."""
    with project(EVALUATIONS / "eval_noop.py") as directory:
        storage = f"sqlite:///{directory / 'own.db'}"
        arguments = ("eval_noop.py", "--experiment", "noop", "--storage", storage)
        taken = bench.pytest(directory, *arguments, ROWS=str(rows))
        times = timeline(storage, "noop")
    if details is not None:
        details.peaks.append(taken.peak)
        details.rates.append(rows / (times.completed - times.created))
    return rows / taken.seconds


def rate_of_peer(bench: Bench, name: str, file: str, rows: int, *arguments: str) -> float:
    with project(PEERS / file) as directory:
        command = ["-m", "pytest", "-q", file, *arguments] if file.startswith(("test_", "eval_")) else [file]
        return rows / bench.peer(name, directory, *command, ROWS=str(rows)).seconds


def measure(bench: Bench) -> None:
    many, fewer = bench.rows(100_000), bench.rows(10_000)
    details = {many: Details(), fewer: Details()}
    ways: dict[str, Callable[[], float]] = {
        f"doteval, {rows:,} rows, stored": partial(rate_of_doteval, bench, rows, details[rows])
        for rows in (many, fewer)
    }
    peers: dict[str, Callable[[], float]] = {}
    if bench.peers:
        peers = {
            f"pydantic-evals, {fewer:,} rows, nothing stored": partial(
                rate_of_peer, bench, "pydantic-evals", "noop_pydantic_evals.py", fewer
            ),
            f"pytest, {fewer:,} rows": partial(rate_of_peer, bench, "pytest", "test_noop_pytest.py", fewer),
            f"pytest-xdist -n 2, {fewer:,} rows": partial(
                rate_of_peer, bench, "pytest", "test_noop_pytest.py", fewer, "-n", "2"
            ),
            **{
                f"{name}, {fewer:,} rows": partial(
                    rate_of_peer, bench, name, "eval_noop_dotevals.py", fewer, "--experiment", "noop"
                )
                for name in ("dotevals-0.26", "dotevals-0.28")
            },
            f"inspect-ai, {fewer // 20:,} rows": partial(
                rate_of_peer, bench, "inspect-ai", "noop_inspect.py", fewer // 20
            ),
        }
    found = bench.compare(WORK, "rows/s", {**ways, **peers})
    at_many = next(iter(found.values())).median
    for rows, detail in details.items():
        bench.report.add(WORK, f"doteval, {rows:,} rows, without start-up", "rows/s", detail.rates)
        bench.report.add(WORK, f"doteval, {rows:,} rows, peak memory", "MB", detail.peaks)
    slowdown = median(details[many].rates) / median(details[fewer].rates)
    bench.report.aim(WORK, f"rows/s at {many:,} rows", at_many, bench.rate(8_000))
    bench.report.aim(WORK, f"rate at {many:,} rows / at {fewer:,}, without start-up", slowdown, 0.9)
    bench.report.aim(WORK, f"peak memory at {many:,} rows, MB", max(details[many].peaks), 150, at_least=False)
    if peers:
        pydantic = found[next(iter(peers))].median
        bench.report.aim(WORK, "× pydantic-evals", at_many / pydantic, 1.3)
