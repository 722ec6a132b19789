"""The supervisor: starts worker processes, starts them again when they die, ends them in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from doteval.core.exit_codes import RECYCLED
from doteval.core.queues_and_devices import DEVICES_VARIABLE, device_of
from doteval.errors import WorkerError
from doteval.store import Store
from doteval.supervision.exit_records import ExitRecords
from doteval.supervision.fork_server import ForkServer, ForkServerGoneError, Process
from doteval.supervision.hang_detector import LOOK_SECONDS, HangDetector
from doteval.supervision.output_relay import OutputFile
from doteval.supervision.start_reports import read_start_report, take_start_report
from doteval.supervision.worker_config import WorkerOptions

# A process that leaves within this many seconds of its start has not worked: the next is started
# later, each time twice as late.
_SHORT_LIFE = 10.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
_LOOK_SECONDS = 0.1
# Starts in succession that may fail, of each worker process, before a submission gives up.
_MOST_FAILED_STARTS = 3
# Seconds of one wait for the fork server, between checks whether the supervisor is to stop.
_READY_SECONDS = 0.02

Command = Callable[[WorkerOptions, int, str], list[str]]


def worker_command(options: WorkerOptions, number: int, log_level: str) -> list[str]:
    """The command line of worker process `number` of a service.

    The options themselves go by the environment, and with them pool and concurrency: see `doteval.worker.tasks`.
    """
    return [sys.executable, "-m", "doteval.worker", f"{options.service}-{number}@%h", log_level]


@dataclass(frozen=True, slots=True)
class FailedStart:
    """A worker process of a service that cannot start: `tries` in succession have failed, the last for `reason`."""

    name: str
    tries: int
    reason: str


@dataclass
class _Place:
    """One of the worker processes that should be there: the process, and when to start the next.

    `failed_starts` is how many in succession ended before they were ready, `failure` why the last one did.
    """

    number: int
    device: str | None = None
    process: Process | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    short_lives: int = field(default=0)
    failed_starts: int = 0
    failure: str = ""


class Supervisor:
    """Keeps `processes` worker processes alive on one machine.

    `told` is called with a line for people whenever a process has died; `output`, if given, with
    every line that a worker process prints, else they print where this process does. Of `devices` each
    worker process sees one: they are dealt in turn, and one that is started again gets the same. A `fork_server`
    forks them; without one, or when it is gone, each is started by itself. `command` makes the command line
    of a worker process; `clock` gives seconds that only ever grow.
    """

    def __init__(
        self,
        options: WorkerOptions,
        processes: int,
        store: Store,
        *,
        told: Callable[[str], None],
        output: Callable[[str], None] | None = None,
        log_level: str = "WARNING",
        devices: Sequence[str] = (),
        fork_server: ForkServer | None = None,
        command: Command = worker_command,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exit_records = ExitRecords(store, told)
        self._options = replace(
            options, supervisor=os.getpid(), parent=os.getpid(), journals=str(self._exit_records.directory)
        )
        self._told = told
        self._output = OutputFile(output) if output is not None else None
        self._log_level = log_level
        self._fork_server = fork_server
        self._command = command
        self._clock = clock
        self._places = [_Place(number, device_of(devices, number)) for number in range(1, processes + 1)]
        self._hang_detector = HangDetector(clock=clock)
        self._next_watch = 0.0
        # The processes that were killed for rows that were over their time, and those that were asked to leave.
        self._stuck: set[int] = set()
        self._asked: set[int] = set()
        self._has_been_ready = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="doteval-supervisor", daemon=True)

    def start(self) -> None:
        """Start a thread that starts all worker processes and keeps them alive, unless it is there."""
        if self._thread.ident is None:
            self._thread.start()

    def dismiss(self) -> None:
        """Start no worker process any more, and ask every one to finish its rows in flight and leave.

        Does not wait for them: `stop` does.
        """
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for process in self._processes():
            # To be asked twice is to be told to leave rows in flight behind.
            if process.pid not in self._asked:
                self._asked.add(process.pid)
                process.send_signal(signal.SIGTERM)

    def stop(self, *, patience: float = 600.0) -> None:
        """Dismiss all worker processes, and wait for them.

        After `patience` seconds they are killed. Raises WorkerError if that was necessary.
        """
        killed = self._end(patience)
        for process in self._processes():
            self._exit_records.record(process, stuck=process.pid in self._stuck)
        if self._output is not None:
            self._output.close()
        self._exit_records.close()
        if killed:
            raise WorkerError(
                f"worker processes {', '.join(map(str, killed))} did not leave within {patience:g} s and were killed",
                remedy="Their rows are pending; submit the experiment again to run them.",
            )

    def _processes(self) -> list[Process]:
        return [place.process for place in self._places if place.process is not None]

    def _end(self, patience: float) -> list[int]:
        """Ask all processes to leave, and wait. Returns the ids of those that had to be killed."""
        deadline = self._clock() + patience
        killed = []
        try:
            self.dismiss()
            for process in self._processes():
                if not self._has_left(process, max(0.0, deadline - self._clock())):
                    process.kill()
                    killed.append(process.pid)
        except KeyboardInterrupt:
            # The second Ctrl-C: the user will not wait for rows in flight.
            for process in self._processes():
                process.kill()
            raise
        finally:
            for process in self._processes():
                process.wait()
        return killed

    def _has_left(self, process: Process, patience: float) -> bool:
        """Wait for a process to leave. A row that is over its time and cannot be interrupted would keep it for ever."""
        while True:
            try:
                process.wait(min(LOOK_SECONDS, patience))
                return True
            except subprocess.TimeoutExpired:
                patience -= LOOK_SECONDS
                if patience <= 0:
                    return False
                self._end_if_stuck(process)

    def pids(self) -> list[int]:
        """The process ids of those that are alive."""
        return [process.pid for process in self._processes() if process.poll() is None]

    def exit_codes(self) -> list[int]:
        """The exit codes of those that have ended."""
        codes = [process.poll() for process in self._processes()]
        return [code for code in codes if code is not None]

    def failed_starts(self) -> list[FailedStart]:
        """The worker processes whose last start failed, unless they are ready by now."""
        return [
            FailedStart(f"{self._options.service}-{place.number}", place.failed_starts, place.failure)
            for place in self._places
            if place.failed_starts and not self._is_ready(place)
        ]

    def hopeless_start(self) -> str | None:
        """Why no worker process can start: a line, and the last lines that they printed.

        None while there is hope: until each of them has failed three times in succession, and for ever once one of
        them was ready.
        """
        if self._has_been_ready or min(place.failed_starts for place in self._places) < _MOST_FAILED_STARTS:
            return None
        failed = self.failed_starts()
        if len(failed) < len(self._places):
            return None
        which = "the worker process" if len(failed) == 1 else f"none of {len(failed)} worker processes"
        became = "did not become" if len(failed) == 1 else "became"
        first_line = failed[-1].reason.partition("\n")[0]
        why = f"{which} {became} ready in {_MOST_FAILED_STARTS} tries: {first_line}"
        lines = self._output.last_lines if self._output is not None else ()
        return "\n  ".join([f"{why}\nThe last lines that were printed:", *lines]) if lines else why

    def _is_ready(self, place: _Place) -> bool:
        process = place.process
        if process is None or not read_start_report(self._exit_records.directory, process.pid).ready:
            return False
        self._has_been_ready = True
        return True

    def _keep(self) -> None:
        while not self._can_start():
            if self._stopping.is_set():
                return
        while not self._stopping.is_set():
            if self._output is not None:
                self._output.pass_on()
            self._exit_records.catch_up()
            for place in self._places:
                if place.process is not None and place.process.poll() is not None:
                    self._bury(place)
                if place.process is None and self._clock() >= place.start_at and not self._stopping.is_set():
                    self._try_to_start(place)
            if self._clock() >= self._next_watch:
                self._next_watch = self._clock() + LOOK_SECONDS
                for place in self._places:
                    if place.process is not None:
                        self._end_if_stuck(place.process)
            self._stopping.wait(_LOOK_SECONDS)

    def _can_start(self) -> bool:
        """Whether the fork server, if there is one, has made its imports; waits a moment for it."""
        try:
            return self._fork_server is None or self._fork_server.is_ready(_READY_SECONDS)
        except ForkServerGoneError:
            return True

    def _end_if_stuck(self, process: Process) -> None:
        if self._hang_detector.are_in(process.pid, self._exit_records.inflight_journal(process.pid)):
            self._stuck.add(process.pid)
            process.kill()

    def _try_to_start(self, place: _Place) -> None:
        try:
            self._start(place)
        except OSError as error:
            # This machine has no process or memory to spare now; it may have later.
            place.failure = f"it cannot be started: {error.strerror}"
            place.failed_starts += 1
            pause = self._pause(place, short=True)
            self._told(f"a worker process cannot be started: {error.strerror}; the next attempt is in {pause:g} s")

    def _start(self, place: _Place) -> None:
        command = self._command(self._options, place.number, self._log_level)
        # In the environment it is set before anything is imported.
        device = {} if place.device is None else {DEVICES_VARIABLE: place.device}
        place.process = self._forked(command, device) or self._spawned(command, device)
        place.started_at = self._clock()

    def _forked(self, command: list[str], device: dict[str, str]) -> Process | None:
        """A worker process that the fork server has forked, None if there is no fork server any more."""
        if self._fork_server is None:
            return None
        options = replace(self._options, parent=self._fork_server.pid)
        output = None if self._output is None else self._output.file
        interpreter, flag, *module = command
        assert (interpreter, flag) == (sys.executable, "-m")
        try:
            return self._fork_server.launch(module, {**options.to_environment(), **device}, output)
        except ForkServerGoneError:
            self._fork_server = None
            return None

    def _spawned(self, command: list[str], device: dict[str, str]) -> Process:
        return subprocess.Popen(
            command,
            env={**os.environ, **self._options.to_environment(), **device},
            stdin=subprocess.DEVNULL,
            stdout=self._output.file if self._output is not None else None,
            stderr=subprocess.STDOUT if self._output is not None else None,
            # Ctrl-C reaches the supervisor only, which then ends its worker processes in order.
            start_new_session=True,
        )

    def _bury(self, place: _Place) -> None:
        assert place.process is not None
        process, place.process = place.process, None
        report = take_start_report(self._exit_records.directory, process.pid)
        if process.returncode == RECYCLED:
            # It has done its share, and the next may begin at once.
            self._exit_records.record(process)
            place.short_lives, place.start_at = 0, self._clock()
            return
        stuck = process.pid in self._stuck
        self._stuck.discard(process.pid)
        # One that left by itself refused its work, as the next may do too, however long its models load.
        short = process.returncode == 0 or (self._clock() - place.started_at < _SHORT_LIFE and not stuck)
        pause = self._pause(place, short=short or not report.ready)
        how = self._exit_records.record(process, stuck=stuck)
        if report.ready:
            self._has_been_ready = True
            place.failed_starts = 0
        else:
            if self._output is not None:
                self._output.pass_on()
            place.failure = report.failure or f"it {how}"
            place.failed_starts += 1
        self._told(f"worker process {process.pid} {how}; the next starts in {pause:g} s")

    def _pause(self, place: _Place, *, short: bool) -> float:
        """Set when the next process starts. Returns the seconds until then."""
        place.short_lives = place.short_lives + 1 if short else 0
        # The exponent is bounded too: a float has no 2**1024.
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(place.short_lives, 20))
        place.start_at = self._clock() + pause
        return pause
