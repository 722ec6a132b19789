"""Where the time goes: ``make profile`` samples a submitter and its worker processes and prints who was busy.

``python -m benchmarks.profile [--rows N] [FILE]`` submits an evaluation of `evaluations` (default: rows that do
nothing). The stacks are kept in `.benchmarks/profile.folded`, a format that flame graph viewers read.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bench import EVALUATIONS, project
from benchmarks.environments import DIRECTORY, python_of
from doteval.resources.mock_openai import MockOpenAI

_RATE = 100
_SHOWN = 25


def main() -> None:
    files = sorted(file.name for file in EVALUATIONS.glob("eval_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("file", nargs="?", default="eval_noop.py", choices=files)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    DIRECTORY.mkdir(exist_ok=True)
    folded = DIRECTORY / "profile.folded"
    with project(EVALUATIONS / options.file, EVALUATIONS / "fixtures.py") as directory, MockOpenAI() as server:
        command = [
            str(Path(sys.executable).parent / "py-spy"),
            "record",
            "--subprocesses",
            "--nonblocking",
            "--full-filenames",
        ]
        command += ["--rate", str(_RATE), "--format", "raw", "--output", str(folded), "--"]
        command += [python_of("doteval"), "-m", "doteval", "submit", options.file, "--experiment", "profile"]
        command += ["--workers", str(options.workers)]
        given = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "unused"}
        more = {"ROWS": str(options.rows), "LOAD": "1", "CPU": "0.001"}
        subprocess.run(command, cwd=directory, env={**os.environ, **given, **more}, check=True)
    for process, stacks in by_process(folded.read_text()).items():
        show(process, stacks)
    Console().print(f"Stacks: {folded}")


def by_process(folded: str) -> dict[str, Counter[tuple[str, ...]]]:
    """The samples of each stack, by the process that they are of; the busiest process first."""
    found: dict[str, Counter[tuple[str, ...]]] = {}
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
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
