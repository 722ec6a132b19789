"""Rows that wait 0.1 s for a model server, 100 and 200 at a time.

Rates are measured by the server, as requests divided by the seconds from the first arrival to the last end, so that
start-up counts for no runner. The mock server is a process of its own, started anew for each measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.bench import EVALUATIONS, PEERS, Bench, project
from benchmarks.figures import shown
from doteval.mock_openai import MockOpenAI

LATENCY = 0.1
Command = Callable[[dict[str, str]], object]


def rate(bench: Bench, rows: int, command: Command, **server: float) -> float:
    """The requests a second that a server receives while `command` runs, which gets its URL in the environment."""
    with MockOpenAI(**{"latency": bench.seconds(LATENCY), **server}) as mock:
        command({"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "unused", "ROWS": str(rows)})
        stats = mock.stats()
    if stats["replies"] != rows:
        raise AssertionError(f"{stats['replies']} replies for {rows} rows")
    return rows / float(stats["seconds"])


def rate_of_submit(bench: Bench, file: str, rows: int, concurrency: int, **server: float) -> float:
    """Two worker processes share the concurrency."""
    with project(EVALUATIONS / file) as directory:
        arguments = ("submit", file, "--experiment", "x", "--workers", "2", "--concurrency", str(concurrency // 2))
        return rate(bench, rows, lambda given: bench.doteval(directory, *arguments, **given), **server)


def rate_of_pytest(bench: Bench, file: str, rows: int, concurrency: int) -> float:
    with project(EVALUATIONS / file) as directory:
        arguments = (file, "--experiment", "x", "--concurrent", str(concurrency))
        return rate(bench, rows, lambda given: bench.pytest(directory, *arguments, **given))


def rate_of_peer(bench: Bench, name: str, file: str, rows: int, concurrency: int) -> float:
    pytest = ["-m", "pytest", "-q", file, "--experiment", "x", "--concurrent"] if file.startswith("eval_") else [file]
    with project(PEERS / file) as directory:
        return rate(
            bench, rows, lambda given: bench.peer(name, directory, *pytest, CONCURRENCY=str(concurrency), **given)
        )


def rate_of_two(bench: Bench, name: str, file: str, rows: int, concurrency: int) -> float:
    """Two processes of the same script, each with half of the rows and of the concurrency."""
    half = {"ROWS": str(rows // 2), "CONCURRENCY": str(concurrency // 2)}
    return rate(bench, rows // 2 * 2, lambda given: bench.two_peers(name, file, **{**given, **half}))


def measure(bench: Bench) -> None:
    rows = bench.rows(10_000)
    for concurrency, aims in ((100, {"create()": 950.0}), (200, {"create()": 1_400.0, "fast path": 1_700.0})):
        work = f"{shown(bench.seconds(LATENCY))} s a call, {concurrency} at a time"
        ours = {
            "create()": partial(rate_of_submit, bench, "eval_latency.py", rows, concurrency),
            "fast path": partial(rate_of_submit, bench, "eval_fast_path.py", rows, concurrency),
        }
        bare = partial(rate_of_two, bench, "doteval", "latency_aiohttp.py", rows, concurrency)
        ways: dict[str, Callable[[], float]] = {
            **{f"doteval submit, two worker processes, {way}": measure for way, measure in ours.items()},
            "pytest with doteval, create()": partial(rate_of_pytest, bench, "eval_latency.py", rows, concurrency),
            "aiohttp alone, two processes": bare,
            "AsyncOpenAI by hand, two processes": partial(
                rate_of_two, bench, "doteval", "latency_asyncio.py", rows, concurrency
            ),
        }
        peers: dict[str, Callable[[], float]] = {}
        if bench.peers:
            # Peers get fewer rows, since they take long. None has a higher rate with more rows.
            peers = {
                f"{name}, {fewer:,} rows": partial(rate_of_peer, bench, environment, file, fewer, concurrency)
                for name, environment, file, fewer in (
                    ("AsyncOpenAI by hand", "doteval", "latency_asyncio.py", bench.rows(4_000)),
                    ("pydantic-evals", "pydantic-evals", "latency_pydantic_evals.py", bench.rows(4_000)),
                    ("dotevals-0.26", "dotevals-0.26", "eval_latency_dotevals.py", bench.rows(2_500)),
                    ("dotevals-0.28", "dotevals-0.28", "eval_latency_dotevals.py", bench.rows(250)),
                    ("inspect-ai", "inspect-ai", "latency_inspect.py", bench.rows(500)),
                )
            }
        found = bench.compare(work, "rows/s", {**ways, **peers})
        medians = {way: figure.median for way, figure in found.items()}
        create, fast = (medians[f"doteval submit, two worker processes, {way}"] for way in ours)
        bench.report.aim(work, "create(), rows/s", create, bench.rate(aims["create()"]))
        if "fast path" in aims:
            bench.report.aim(work, "fast path, rows/s", fast, bench.rate(aims["fast path"]))
        bench.report.aim(work, "fast path × aiohttp alone", fast / medians["aiohttp alone, two processes"], 0.9)
        if peers:
            best = max(medians[way] for way in peers)
            bench.report.aim(work, "create() × the best peer with the openai client", create / best, 1.8)
