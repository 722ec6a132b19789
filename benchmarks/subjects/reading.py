"""Commands that read two finished experiments of a million rows of 1 KB with two scores, on SQLite and PostgreSQL.

The store is filled by statements of the database (`benchmarks.large_store`), which is not measured. Each command is
measured whole, in turn with a command that only starts and opens the store (``list``): its time is subtracted, and
rates are of what is left. Memory is the peak of the command with everything that it imports. pandas answers the same
questions from the Parquet files of the exports, with all columns that it needs in memory; an import of pandas is
subtracted from its time. inspect-ai answers them with `evals_df` and `samples_df` from a log of 20,000 such samples,
beside doteval with as many rows. An environment from before this subject lacks pyarrow, DuckDB or pandas: remove
`.benchmarks/doteval` and `.benchmarks/inspect-ai`, and they are made anew.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench import PEERS, Bench, project
from benchmarks.commands import Measured
from benchmarks.environments import python_of
from benchmarks.large_store import fill
from benchmarks.servers import result_store

_SQL = (
    "SELECT row->>'category' AS category, avg(scores['exact_match']) AS mean, count(*) AS n"
    " FROM records WHERE experiment = 'base' GROUP BY 1"
)
_COMMANDS = {
    "show, filter, 20 rows": ("show", "base", "--where", "score.exact_match = 0 and row.category = 'category 7'"),
    "show --group-by": ("show", "base", "--group-by", "row.category"),
    "query, the same groups": ("query", _SQL),
    "export to Parquet": ("export", "base", "base.parquet"),
    "compare": ("compare", "base", "new"),
    "history": ("history", "exact_match.accuracy"),
    "status": ("status", "base"),
    "usage": ("usage", "base"),
    "list": ("list",),
}
# Seconds beyond the start, of a million rows.
_AIMS = {
    "show, filter, 20 rows": 1.0,
    "show --group-by": 5.0,
    "compare": 30.0,
    "history": 1.0,
    "status": 5.0,
    "usage": 5.0,
}
_PANDAS = {
    "show, filter, 20 rows": ("filter", "base.parquet"),
    "show --group-by": ("group", "base.parquet"),
    "compare": ("compare", "base.parquet", "new.parquet"),
}
_INSPECT = {"show, filter, 20 rows": "filter", "show --group-by": "group", "history": "history"}
_INSPECT_ROWS = 20_000
_MOST_MEMORY = 500
_RATE = 30_000


def measure(bench: Bench) -> None:
    rows = bench.rows(1_000_000)
    for database in ("SQLite", "PostgreSQL"):
        with project(PEERS / "reading_pandas.py") as directory, result_store(database, directory) as url:
            for seed, experiment in enumerate(("base", "new")):
                fill(url, experiment, rows, seed=seed)
            _measure(bench, f"{rows:,} rows of 1 KB, {database}", directory, url, rows)
    if bench.peers:
        _measure_inspect(bench, bench.rows(_INSPECT_ROWS))


def _measure(bench: Bench, work: str, directory: Path, url: str, rows: int) -> None:
    taken: dict[str, list[Measured]] = {name: [] for name in _COMMANDS}
    for _ in range(bench.repeat):
        for name, arguments in _COMMANDS.items():
            taken[name].append(bench.doteval(directory, *arguments, DOTEVAL_STORAGE=url))
    start = min(each.seconds for each in taken["list"])
    bench.report.add(work, "start-up (list)", "s", [each.seconds for each in taken["list"]])
    for name, found in taken.items():
        if name == "list":
            continue
        beyond = [max(each.seconds - start, 0.001) for each in found]
        figure = bench.report.add(work, f"{name}: beyond the start", "s", beyond)
        bench.report.add(work, f"{name}: processor time", "s", [each.cpu for each in found])
        memory = bench.report.add(work, f"{name}: memory", "MB", [each.peak for each in found])
        bench.report.aim(work, f"{name}, MB", memory.median, _MOST_MEMORY, at_least=False)
        if name in _AIMS:
            bench.report.aim(work, f"{name}, s", figure.median, bench.seconds(_AIMS[name]), at_least=False)
        if name == "export to Parquet":
            rate = bench.report.add(work, f"{name}", "rows/s", [rows / each for each in beyond])
            bench.report.aim(work, f"{name}, rows/s", rate.median, bench.rate(_RATE))
    if bench.peers:
        _measure_pandas(bench, work, directory, url, taken)


def _measure_pandas(bench: Bench, work: str, directory: Path, url: str, taken: dict[str, list[Measured]]) -> None:
    bench.doteval(directory, "export", "new", "new.parquet", DOTEVAL_STORAGE=url)
    python_of("doteval")
    start = min(bench.peer("doteval", directory, "-c", "import pandas, pyarrow.parquet").seconds for _ in range(3))
    ours = min(each.seconds for each in taken["list"])
    for name, arguments in _PANDAS.items():
        found = [bench.peer("doteval", directory, "reading_pandas.py", *arguments) for _ in range(bench.repeat)]
        figure = bench.report.add(
            work, f"{name}, pandas on Parquet", "s", [max(each.seconds - start, 0.001) for each in found]
        )
        bench.report.add(work, f"{name}, pandas on Parquet: memory", "MB", [each.peak for each in found])
        ratio = [max(each.seconds - ours, 0.001) / figure.median for each in taken[name]]
        bench.report.add(work, f"{name}: doteval / pandas", "×", ratio)


def _measure_inspect(bench: Bench, rows: int) -> None:
    with project(PEERS / "reading_inspect.py") as directory:
        work = f"{rows:,} rows of 1 KB, SQLite"
        url = f"sqlite:///{directory / 'results.db'}"
        fill(url, "base", rows, seed=0)
        bench.peer("inspect-ai", directory, "reading_inspect.py", "write", str(rows))
        imported = "from inspect_ai.analysis import evals_df, samples_df"
        start = min(bench.peer("inspect-ai", directory, "-c", imported).seconds for _ in range(3))
        ours = min(bench.doteval(directory, "list", DOTEVAL_STORAGE=url).seconds for _ in range(3))
        for name, question in _INSPECT.items():
            taken: dict[str, list[Measured]] = {"doteval": [], "inspect-ai": []}
            for _ in range(bench.repeat):
                taken["doteval"].append(bench.doteval(directory, *_COMMANDS[name], DOTEVAL_STORAGE=url))
                taken["inspect-ai"].append(
                    bench.peer("inspect-ai", directory, "reading_inspect.py", question, str(rows))
                )
            for runner, begins in (("doteval", ours), ("inspect-ai", start)):
                beyond = [max(each.seconds - begins, 0.001) for each in taken[runner]]
                bench.report.add(work, f"{name}, {runner}: beyond the start", "s", beyond)
                bench.report.add(work, f"{name}, {runner}: memory", "MB", [each.peak for each in taken[runner]])
