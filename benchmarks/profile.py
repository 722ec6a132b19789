"""``make profile`` shows where a submitter and its worker processes spend processor time.

``python -m benchmarks.profile [--rows N] [FILE]`` submits an evaluation of `evaluations` (default: rows that do
nothing) twice: once to count processor seconds by thread, and once to sample stacks, which slows it down a little.
The stacks are written to `.benchmarks/profile.folded`, a format that flame graph viewers read. With ``--local`` it
profiles `pytest` in one process instead.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.bench import EVALUATIONS, project
from benchmarks.environments import DIRECTORY, python_of
from benchmarks.processor import PY_SPY, ProcessorTime, Thread, processor_time
from doteval.mock_openai import MockOpenAI

_SAMPLES_PER_SECOND = 100
_FUNCTIONS_SHOWN = 25
_NAME_CHARACTERS = 90
# A thread with fewer processor seconds than this is not shown.
_LEAST_SECONDS = 0.05


def main() -> None:
    files = sorted(file.name for file in EVALUATIONS.glob("eval_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("file", nargs="?", default="eval_noop.py", choices=files)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--load", default="1", help="seconds in which the model of eval_expensive.py loads (default 1)")
    parser.add_argument("--cpu", default="0.02", help="processor seconds of each of its rows (default 0.02)")
    parser.add_argument(
        "--latency", type=float, default=0.1, help="seconds in which the mock server replies (default 0.1)"
    )
    parser.add_argument("--concurrency", type=int, help="rows in flight in each process")
    parser.add_argument("--local", action="store_true", help="pytest in one process instead of submit")
    options = parser.parse_args()
    DIRECTORY.mkdir(exist_ok=True)
    folded = DIRECTORY / "profile.folded"
    python = python_of("doteval")
    if options.local:
        command = [python, "-m", "pytest", "-q", options.file, "--experiment", "profile"]
        at_once = "--concurrent"
    else:
        command = [python, "-m", "doteval", "submit", options.file, "--experiment", "profile"]
        command += ["--workers", str(options.workers)]
        at_once = "--concurrency"
    if options.concurrency is not None:
        command += [at_once, str(options.concurrency)]
    sampler = [PY_SPY, "record", "--subprocesses", "--nonblocking", "--full-filenames"]
    sampler += ["--rate", str(_SAMPLES_PER_SECOND), "--format", "raw", "--output", str(folded), "--"]
    given = {"ROWS": str(options.rows), "LOAD": options.load, "CPU": options.cpu, "OPENAI_API_KEY": "unused"}
    with MockOpenAI(latency=options.latency) as server:
        given["OPENAI_BASE_URL"] = server.base_url
        with project(EVALUATIONS / options.file, EVALUATIONS / "fixtures.py") as directory:
            taken = processor_time(command, directory, given, beside=[server.pid])
        with project(EVALUATIONS / options.file, EVALUATIONS / "fixtures.py") as directory:
            subprocess.run([*sampler, *command], cwd=directory, env={**os.environ, **given}, check=True)
    show_processor_time(taken)
    for process, stacks in by_process(folded.read_text()).items():
        show(process, stacks)
    Console().print(f"Stacks: {folded}")


def show_processor_time(taken: ProcessorTime) -> None:
    total = sum(process.seconds for process in taken.processes)
    title = f"{total:.1f} processor seconds in {taken.seconds:.1f} s; all processors {taken.busy:.0%} busy midway"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("seconds", "user", "system", "yielded", "displaced", "thread"):
        table.add_column(name, justify="left" if name == "thread" else "right")
    for process in taken.processes:
        table.add_row(f"{process.seconds:.2f}", "", "", "", "", escape(process.name[:_NAME_CHARACTERS]), style="bold")
        for name, threads in _by_name(process.threads.values()):
            if sum(thread.seconds for thread in threads) >= _LEAST_SECONDS:
                times = [sum(getattr(thread, time) for thread in threads) for time in ("seconds", "user", "system")]
                counts = [sum(getattr(thread, count) for thread in threads) for count in ("yielded", "displaced")]
                shown = f"  {name}" if len(threads) == 1 else f"  {name} ({len(threads)} threads)"
                table.add_row(*(f"{time:.2f}" for time in times), *(f"{count:,}" for count in counts), shown)
    Console(width=150, highlight=False).print(table)


def _by_name(threads: Iterable[Thread]) -> list[tuple[str, list[Thread]]]:
    """Group threads by name without the number that pools append; the busiest group first."""
    found: dict[str, list[Thread]] = {}
    for thread in threads:
        found.setdefault(thread.name.rstrip("-_0123456789") or "nameless", []).append(thread)
    return sorted(found.items(), key=lambda item: -sum(thread.seconds for thread in item[1]))


def by_process(folded: str) -> dict[str, Counter[tuple[str, ...]]]:
    """The number of samples of each stack, by process; the busiest process first."""
    found: dict[str, Counter[tuple[str, ...]]] = {}
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdigit():
            # The sampler reads a running process, and sometimes reads garbage with line breaks instead of a name.
            continue
        frames = stack.split(";")
        # The stacks of a process are below those of the processes that started it.
        depth = sum(frame.startswith("process ") for frame in frames)
        if depth < len(frames):
            found.setdefault(frames[depth - 1], Counter())[tuple(frames[depth:])] += int(count)
    return dict(sorted(found.items(), key=lambda item: -item[1].total()))


def show(process: str, stacks: Counter[tuple[str, ...]]) -> None:
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for frames, count in stacks.items():
        own[_function(frames[-1])] += count
        for function in {_function(frame) for frame in frames}:
            below[function] += count
    table = Table(title=f"{process}: {stacks.total() / _SAMPLES_PER_SECOND:.1f} s busy", title_justify="left", box=None)
    for name in ("with calls", "itself", "function"):
        table.add_column(name, justify="left" if name == "function" else "right")
    shown = {function for function, _ in below.most_common(_FUNCTIONS_SHOWN)} | {
        function for function, _ in own.most_common(10)
    }
    for function in sorted(shown, key=lambda function: -below[function]):
        table.add_row(
            f"{below[function] / _SAMPLES_PER_SECOND:.2f} s", f"{own[function] / _SAMPLES_PER_SECOND:.2f} s", function
        )
    Console(width=150).print(table)


def _function(frame: str) -> str:
    """The name of a frame's function and the end of its path, without the line number."""
    name, _, place = frame.partition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name}  {'/'.join(Path(path).parts[-3:])}"


if __name__ == "__main__":
    main()
