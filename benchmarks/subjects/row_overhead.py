"""A row with four fixtures, one of them made anew for each row, beside the same as pytest's own item.

The cost of one row or item is the slope: the difference of two commands by the difference of their rows, so that
start-up counts for neither.
"""

from __future__ import annotations

from functools import partial

from benchmarks.bench import EVALUATIONS, Bench, project

WORK = "a row with four fixtures, one of them its own"


def measure(bench: Bench) -> None:
    few, many = bench.rows(2_000), bench.rows(12_000)

    def cost(file: str, *arguments: str) -> float:
        """Milliseconds for each row beyond the first few."""
        seconds = []
        for rows in (few, many):
            with project(EVALUATIONS / file, EVALUATIONS / "fixtures.py") as directory:
                # Without the evaluations' plugin, pytest is what it is by itself.
                seconds.append(bench.pytest(directory, file, *arguments, ROWS=str(rows)).seconds)
        return (seconds[1] - seconds[0]) / (many - few) * 1000

    found = bench.compare(
        WORK,
        "ms",
        {
            "doteval, stored": partial(cost, "eval_fixtures.py", "--experiment", "x"),
            "pytest": partial(cost, "test_fixtures.py", "-p", "no:doteval"),
        },
    )
    ours, theirs = (figure.median for figure in found.values())
    bench.report.aim(WORK, "× pytest", ours / theirs, 1.3, at_least=False)
