"""A row with four fixtures, one of them function-scoped, beside the same as an item of pytest.

The cost of one row or item is the difference between two commands divided by the difference of their rows, so that
start-up does not count.
"""

from __future__ import annotations

from functools import partial

from benchmarks.bench import EVALUATIONS, Bench, project

WORK = "a row with four fixtures, one of them its own"


def measure(bench: Bench) -> None:
    few, many = bench.rows(2_000), bench.rows(12_000)

    def cost(file: str, *arguments: str) -> float:
        """The milliseconds of one row."""
        seconds = []
        for rows in (few, many):
            with project(EVALUATIONS / file, EVALUATIONS / "fixtures.py") as directory:
                # The plain pytest runs without the plugin of doteval.
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
