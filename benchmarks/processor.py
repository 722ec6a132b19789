"""How much of the processor each thread takes of a command and of all that it starts.

The system counts it by thread, to 10 ms, for as long as the thread lives: it is read ten times a second, and what a
thread took after the last look is missing. Names of threads are Python's own, by py-spy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.commands import CommandFailedError, descendants

PY_SPY = str(Path(sys.executable).parent / "py-spy")

_LOOK_SECONDS = 0.1
# Seconds after which threads are named, for which their process stops for a moment; later ones remain nameless.
_NAMING_AT = (2.0, 8.0)
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Thread:
    """`user` and `system` are seconds of the processor, `yielded` and `displaced` how often it left it for another."""

    name: str = ""
    user: float = 0.0
    system: float = 0.0
    yielded: int = 0
    displaced: int = 0

    @property
    def seconds(self) -> float:
        return self.user + self.system


@dataclass(slots=True)
class Process:
    name: str
    threads: dict[int, Thread] = field(default_factory=lambda: defaultdict(Thread))

    @property
    def seconds(self) -> float:
        return sum(thread.seconds for thread in self.threads.values())


@dataclass(frozen=True, slots=True)
class ProcessorTime:
    """What a command took: `seconds` of wall time, and its processes, the busiest first.

    `busy` is the share of all the machine's processors that was in use midway, in the middle half of that time.
    """

    seconds: float
    processes: list[Process]
    busy: float


def processor_time(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], *, beside: Sequence[int] = ()
) -> ProcessorTime:
    """Run a command; processes `beside` it are looked at, too, such as a server that it asks.

    Raises CommandFailedError if it does not end with exit code 0.
    """
    processes: dict[int, Process] = {}
    namings = list(_NAMING_AT)
    idle = [(time.perf_counter(), _idle_seconds())]
    running = subprocess.Popen(command, cwd=directory, env={**os.environ, **environment})
    while running.poll() is None:
        for pid in [running.pid, *descendants(running.pid), *beside]:
            _look(pid, processes)
        if namings and idle[-1][0] - idle[0][0] > namings[0]:
            del namings[0]
            for pid, process in processes.items():
                _name_threads(pid, process)
        time.sleep(_LOOK_SECONDS)
        idle.append((time.perf_counter(), _idle_seconds()))
    if running.returncode != 0:
        raise CommandFailedError(f"{' '.join(command)} ended with {running.returncode}")
    (began, before), (ended, after) = idle[len(idle) // 4], idle[3 * len(idle) // 4]
    busy = 1 - (after - before) / ((ended - began) * (os.cpu_count() or 1))
    by_time = sorted(processes.values(), key=lambda process: -process.seconds)
    return ProcessorTime(idle[-1][0] - idle[0][0], by_time, busy)


def _idle_seconds() -> float:
    """For how long the processors have had nothing to do, together, since the machine began."""
    fields = Path("/proc/stat").read_text().split(maxsplit=6)
    return (int(fields[4]) + int(fields[5])) / _TICKS


def _look(pid: int, processes: dict[int, Process]) -> None:
    try:
        name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        process = processes.setdefault(pid, Process(name))
        # A process that was forked or has replaced its program says later what it is.
        process.name = name or process.name
        for task in Path(f"/proc/{pid}/task").iterdir():
            # After the name in brackets, which may contain anything: user and system time are the 12th and 13th.
            times = (task / "stat").read_text().rpartition(")")[2].split()
            thread = process.threads[int(task.name)]
            thread.user, thread.system = int(times[11]) / _TICKS, int(times[12]) / _TICKS
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    thread.yielded = int(line.split()[1])
                elif line.startswith("nonvoluntary_ctxt_switches"):
                    thread.displaced = int(line.split()[1])
    except OSError:
        # It has just ended: what was seen before stays.
        return


def _name_threads(pid: int, process: Process) -> None:
    found = subprocess.run([PY_SPY, "dump", "--json", "--pid", str(pid)], capture_output=True, check=False)
    if found.returncode != 0:
        # Not Python, or it has ended.
        return
    for thread in json.loads(found.stdout):
        if thread["os_thread_id"] in process.threads:
            process.threads[thread["os_thread_id"]].name = thread["thread_name"] or ""
