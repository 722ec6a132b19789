"""Where the time goes: ``make profile`` prints how busy a submitter and its worker processes were, and with what.

``python -m benchmarks.profile [--rows N] [FILE]`` submits an evaluation of `evaluations` (default: rows that do
nothing) twice: once to count seconds of the processor by thread, once to sample stacks, which slows it down a little.
The stacks are kept in `.benchmarks/profile.folded`, a format that flame graph viewers read. With ``--local``, the same
of `pytest` in one process.
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

_RATE = 100
_SHOWN = 25
_NAME_SHOWN = 90
# Seconds of the processor from which on a thread has a line of its own.
_LEAST_SHOWN = 0.05


def main() -> None:
    files = sorted(file.name for file in EVALUATIONS.glob("eval_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("file", nargs="?", default="eval_noop.py", choices=files)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--load", default="1", help="seconds that the model of eval_expensive.py takes (default 1)")
    parser.add_argument("--cpu", default="0.02", help="and its rows, of the processor (default 0.02)")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds that the mock server takes (default 0.1)")
    parser.add_argument("--concurrency", type=int, help="rows at once in each process")
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
    sampler += ["--rate", str(_RATE), "--format", "raw", "--output", str(folded), "--"]
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
    title = f"{total:.1f} s of the processor in {taken.seconds:.1f} s; midway all were {taken.busy:.0%} busy"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("seconds", "user", "system", "yielded", "displaced", "thread"):
        table.add_column(name, justify="left" if name == "thread" else "right")
    for process in taken.processes:
        table.add_row(f"{process.seconds:.2f}", "", "", "", "", escape(process.name[:_NAME_SHOWN]), style="bold")
        for name, threads in _by_name(process.threads.values()):
            if sum(thread.seconds for thread in threads) >= _LEAST_SHOWN:
                times = [sum(getattr(thread, time) for thread in threads) for time in ("seconds", "user", "system")]
                counts = [sum(getattr(thread, count) for thread in threads) for count in ("yielded", "displaced")]
                shown = f"  {name}" if len(threads) == 1 else f"  {name} ({len(threads)} threads)"
                table.add_row(*(f"{time:.2f}" for time in times), *(f"{count:,}" for count in counts), shown)
    Console(width=150, highlight=False).print(table)


def _by_name(threads: Iterable[Thread]) -> list[tuple[str, list[Thread]]]:
    """Threads of the same name, which pools number, together; the busiest first."""
    found: dict[str, list[Thread]] = {}
    for thread in threads:
        found.setdefault(thread.name.rstrip("-_0123456789") or "nameless", []).append(thread)
    return sorted(found.items(), key=lambda item: -sum(thread.seconds for thread in item[1]))


def by_process(folded: str) -> dict[str, Counter[tuple[str, ...]]]:
    """The samples of each stack, by the process that they are of; the busiest process first."""
    found: dict[str, Counter[tuple[str, ...]]] = {}
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdigit():
            # A process is looked at while it runs: now and then a name is any text of it, with line breaks.
            continue
        frames = stack.split(";")
        # A process's stacks are below those that started it.
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
    table = Table(title=f"{process}: {stacks.total() / _RATE:.1f} s busy", title_justify="left", box=None)
    for name in ("with calls", "itself", "function"):
        table.add_column(name, justify="left" if name == "function" else "right")
    shown = {function for function, _ in below.most_common(_SHOWN)} | {function for function, _ in own.most_common(10)}
    for function in sorted(shown, key=lambda function: -below[function]):
        table.add_row(f"{below[function] / _RATE:.2f} s", f"{own[function] / _RATE:.2f} s", function)
    Console(width=150).print(table)


def _function(frame: str) -> str:
    """A frame without its line number, and with the end of its file's path."""
    name, _, place = frame.partition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name}  {'/'.join(Path(path).parts[-3:])}"


if __name__ == "__main__":
    main()
