"""`doteval rescore`: rows of one call that is answered from the call journal, beside rows that do nothing.

Both run on two worker processes. The time of a command with few rows, its start-up, is subtracted.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.bench import EVALUATIONS, Bench, project
from doteval.mock_openai import MockOpenAI

WORK = "rows of one call, two worker processes"
FEW = 100
GIVEN = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "unused"}


def record(bench: Bench, directory: Path, rows: int) -> None:
    """Run an experiment of so many rows, so that its calls are in the journal."""
    with MockOpenAI() as mock:
        given = {**GIVEN, "OPENAI_BASE_URL": mock.base_url, "ROWS": str(rows)}
        bench.pytest(directory, "eval_calls.py", "--experiment", f"first-{rows}", "--concurrent", "100", **given)


def rate_of_rescore(bench: Bench, directory: Path, rows: int) -> float:
    def seconds(count: int) -> float:
        arguments = (f"first-{count}", "--as", f"again-{count}", "--workers", "2", "--concurrency", "100")
        taken = bench.doteval(directory, "rescore", *arguments, **GIVEN, ROWS=str(count)).seconds
        bench.doteval(directory, "delete", f"again-{count}", "--yes")
        return taken

    return rows / (seconds(rows + FEW) - seconds(FEW))


def rate_of_no_ops(bench: Bench, rows: int) -> float:
    def seconds(count: int) -> float:
        with project(EVALUATIONS / "eval_noop.py") as directory:
            arguments = ("eval_noop.py", "--experiment", "noop", "--workers", "2")
            return bench.doteval(directory, "submit", *arguments, ROWS=str(count)).seconds

    return rows / (seconds(rows + FEW) - seconds(FEW))


def measure(bench: Bench) -> None:
    rows = bench.rows(20_000)
    with project(EVALUATIONS / "eval_calls.py") as directory:
        record(bench, directory, FEW)
        record(bench, directory, rows + FEW)
        ways = {
            "doteval rescore": partial(rate_of_rescore, bench, directory, rows),
            "rows that do nothing": partial(rate_of_no_ops, bench, rows),
        }
        rates = bench.compare(WORK, "rows/s", ways)
    ratio = rates["doteval rescore"].median / rates["rows that do nothing"].median
    bench.report.aim(WORK, "× rows that do nothing", ratio, 0.5)
