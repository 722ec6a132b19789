"""Runs a command and measures its time, processor time and memory."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_SECONDS = 0.1


class CommandFailedError(Exception):
    """A measured command failed. The message has the end of its output."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a command took: `seconds` of wall time, and `cpu` seconds of it and all processes that it started.

    `peak` is the peak resident memory of the command's own process in MB, `largest` that of the largest process that
    it started. `output` is what it printed.
    """

    seconds: float
    cpu: float
    peak: float
    largest: float
    output: str


def measured(
    command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None, *, timeout: float = 1800
) -> Measured:
    """Run a command in a directory. Raises CommandFailedError if its exit code is not 0."""
    log = directory / "output.txt"
    with log.open("wb") as output:
        before = processor_seconds()
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=directory, env={**os.environ, **(environment or {})}, stdout=output, stderr=output
        )
        peaks = _Peaks(process.pid)
        peaks.start()
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            peaks.stop()
        seconds = time.perf_counter() - began
        cpu = processor_seconds() - before
    text = log.read_text(errors="replace")
    if code != 0:
        raise CommandFailedError(f"{' '.join(command)} ended with {code}:\n{text[-2000:]}")
    return Measured(seconds, cpu, peaks.own, peaks.largest, text)


def processor_seconds() -> float:
    """The processor seconds of all commands that have ended so far, and of the processes that they waited for."""
    times = os.times()
    return times.children_user + times.children_system


class _Peaks(threading.Thread):
    """Reads the peak memory of a process and of its descendants, which the kernel records, several times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.own = self.largest = 0.0
        self._pid = pid
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            try:
                self.own = max(self.own, peak_of(self._pid))
                for child in descendants(self._pid):
                    self.largest = max(self.largest, peak_of(child))
            except OSError:
                # A process has just ended.
                continue

    def stop(self) -> None:
        self._ended.set()
        self.join()


def descendants(pid: int) -> Iterator[int]:
    """The child processes of a process, their children, and so on."""
    # Read from the kernel's lists of children: psutil reads every process of the machine and takes ten times as long.
    try:
        found = [
            int(child) for each in Path(f"/proc/{pid}/task").glob("*/children") for child in each.read_text().split()
        ]
    except OSError:
        # The process, or one of its threads, has just ended; the others are read next time.
        return
    for child in found:
        yield child
        yield from descendants(child)


def peak_of(pid: int) -> float:
    """The peak resident memory of a process so far, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
