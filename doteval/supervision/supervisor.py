"""The supervisor: starts worker processes, restarts those that die, and ends them in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from doteval.core import clocks
from doteval.core.exit_codes import RECYCLED
from doteval.core.file_descriptors import how_to_raise, is_lack_of_descriptors
from doteval.core.process_identity import new_token
from doteval.core.queues_and_devices import DEVICES_VARIABLE, device_of
from doteval.core.wording import counted
from doteval.errors import WorkerError
from doteval.store import Store, WorkerInfo
from doteval.supervision.exit_records import ExitRecords
from doteval.supervision.fork_server import ForkServer, ForkServerGoneError, Process
from doteval.supervision.hang_detector import CHECK_SECONDS, HangDetector
from doteval.supervision.inflight_journal import inflight_journal_path
from doteval.supervision.output_relay import OutputFile
from doteval.supervision.start_reports import announced_tokens, read_start_report
from doteval.supervision.wait_report import WaitReport
from doteval.supervision.worker_config import WorkerOptions

# A process that leaves within so many seconds of its start has not worked. The pause before the next start doubles each
# time.
_SHORT_LIFE_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
_CHECK_SECONDS = 0.1
# Starts in succession that may fail, of each worker process, before a submission gives up.
_MOST_FAILED_STARTS = 3
# Seconds of one wait for the fork server, between checks whether the supervisor is to stop.
_READY_SECONDS = 0.02

Command = Callable[[WorkerOptions, int, str], list[str]]


def worker_command(options: WorkerOptions, number: int, log_level: str) -> list[str]:
    """Return the command line of worker process `number` of a service.

    The options are passed in the environment; `doteval.worker.tasks` takes pool and concurrency from them.
    """
    return [sys.executable, "-m", "doteval.worker", f"{options.service}-{number}@%h", log_level]


@dataclass(frozen=True, slots=True)
class FailedStart:
    """A worker process of a service that cannot start: `tries` in succession have failed, the last for `reason`."""

    name: str
    tries: int
    reason: str


@dataclass
class _Replica:
    """One of the worker processes that should run: the current process, and when to start the next one.

    `directory` has what the current process writes for its supervisor. `is_stuck` says that it was killed because a row
    hung, `is_asked` that it was asked to leave, and `is_overdue` that it was killed because it did not leave.
    `failed_starts` is how many in succession ended before they were ready,
    `failure` why the last one did, and `logged` the same for logs.
    """

    number: int
    device: str | None = None
    process: Process | None = None
    directory: Path = Path()
    is_stuck: bool = False
    is_asked: bool = False
    is_overdue: bool = False
    started_at: float = 0.0
    start_at: float = 0.0
    short_lives: int = field(default=0)
    failed_starts: int = 0
    failure: str = ""
    logged: str = ""

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Keeps `processes` worker processes alive on one machine.

    on_message: called with a line for the user whenever a process has died.
    output: called with every line that a worker process prints; None lets them print where this process does.
    devices: each worker process sees one of them, in turn; a restarted process sees the same one.
    fork_server: forks the worker processes; without one, or when it is gone, each is started by itself.
    command: makes the command line of a worker process.
    clock: returns seconds that never decrease.
    """

    def __init__(
        self,
        options: WorkerOptions,
        processes: int,
        store: Store,
        *,
        on_message: Callable[[str], None],
        output: Callable[[str], None] | None = None,
        log_level: str = "WARNING",
        devices: Sequence[str] = (),
        fork_server: ForkServer | None = None,
        command: Command = worker_command,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._exit_records = ExitRecords(store, on_message)
        self._options = replace(
            options, supervisor=os.getpid(), supervisor_token=new_token(), parent=os.getpid(), journals=None
        )
        self._on_message = on_message
        self._output = OutputFile(output, self._exit_records.directory) if output is not None else None
        self._log_level = log_level
        self._fork_server = fork_server
        self._command = command
        self._clock = clock
        self._replicas = [_Replica(number, device_of(devices, number)) for number in range(1, processes + 1)]
        self._hang_detector = HangDetector(clock=clock)
        self._next_hang_check = 0.0
        self._wait_report = WaitReport(on_message, clock)
        # Whether all of them were killed because the user did not want to wait.
        self._at_once = False
        self._has_been_ready = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="doteval-supervisor", daemon=True)

    def start(self) -> None:
        """Start the thread that starts all worker processes and keeps them alive; does nothing the second time."""
        if self._thread.ident is None:
            self._thread.start()

    def drain(self) -> None:
        """Start no further worker process, and ask each one to finish its rows in flight and leave.

        Does not wait for that; `stop` does.
        """
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for replica, process in self._running():
            # A second SIGTERM would make it abandon its rows in flight.
            if not replica.is_asked:
                replica.is_asked = True
                process.send_signal(signal.SIGTERM)

    def stop(self, *, timeout: float = 600.0) -> None:
        """Drain all worker processes, and wait for their ends. Every ten seconds it says what they still do.

        A KeyboardInterrupt meanwhile kills those that have not left.

        Raises WorkerError: if some did not leave within `timeout` seconds and were killed.
        """
        try:
            killed = self._end(timeout)
        finally:
            for replica, process in self._running():
                at_once = self._at_once or replica.is_overdue
                self._exit_records.record(process, replica.directory, stuck=replica.is_stuck, at_once=at_once)
            # Once for all: each attempt may take as long as the connection to a silent store.
            self._exit_records.catch_up()
            if self._output is not None:
                self._output.close()
            self._exit_records.close()
        if killed:
            raise WorkerError(
                f"worker processes {', '.join(map(str, killed))} did not leave within {timeout:g} s and were killed",
                remedy="Their rows are pending; submit the experiment again to run them.",
            )

    def _running(self) -> list[tuple[_Replica, Process]]:
        """The processes that are started, and those that have ended since and are not recorded yet."""
        return [(replica, replica.process) for replica in self._replicas if replica.process is not None]

    def _end(self, timeout: float) -> list[int]:
        """Ask all processes to leave, and wait. Returns the pids of those that had to be killed."""
        deadline = self._clock() + timeout
        killed = []
        try:
            self.drain()
            self._wait_report.begin()
            for replica, process in self._running():
                if not self._has_left(replica, process, deadline):
                    replica.is_overdue = True
                    process.kill()
                    killed.append(process.pid)
        except KeyboardInterrupt:
            # A second signal: the user does not want to wait for rows in flight.
            self._at_once = True
            for _, process in self._running():
                process.kill()
            raise
        finally:
            for _, process in self._running():
                process.wait()
        return killed

    def _has_left(self, replica: _Replica, process: Process, deadline: float) -> bool:
        """Wait for a process to leave, and kill it if a row hangs. Returns whether it has ended."""
        while True:
            left = deadline - self._clock()
            try:
                process.wait(max(0.0, min(CHECK_SECONDS, left)))
                return True
            except subprocess.TimeoutExpired:
                if left <= CHECK_SECONDS:
                    return False
                if self._output is not None:
                    self._output.pass_on()
                self._end_if_hung(replica, process)
                self._wait_report.look([each.directory for each, _ in self._running() if each.is_alive()], left)

    def pids(self) -> list[int]:
        """The pids of the worker processes that are alive."""
        return [process.pid for _, process in self._running() if process.poll() is None]

    def tokens(self) -> list[str]:
        """The tokens in the store of the worker processes that are alive."""
        alive = (replica for replica, process in self._running() if process.poll() is None)
        return [token for replica in alive for token in announced_tokens(replica.directory)]

    def exit_codes(self) -> list[int]:
        """The exit codes of worker processes that have ended and are not restarted yet."""
        codes = [process.poll() for _, process in self._running()]
        return [code for code in codes if code is not None]

    def failed_starts(self) -> list[FailedStart]:
        """The worker processes whose last start failed, unless they are ready by now."""
        return [
            FailedStart(f"{self._options.service}-{replica.number}", replica.failed_starts, replica.logged)
            for replica in self._replicas
            if replica.failed_starts and not self._is_ready(replica)
        ]

    def hopeless_start(self) -> str | None:
        """Why no worker process can start: a line, and the last lines that they printed.

        None while there is hope: until each of them has failed three times in succession, and for ever once one of
        them was ready.
        """
        if self._has_been_ready or min(replica.failed_starts for replica in self._replicas) < _MOST_FAILED_STARTS:
            return None
        failed = self.failed_starts()
        if len(failed) < len(self._replicas):
            return None
        which = "the worker process" if len(failed) == 1 else f"none of {counted(len(failed), 'worker process')}"
        became = "did not become" if len(failed) == 1 else "became"
        first_line = self._replicas[-1].failure.partition("\n")[0]
        why = f"{which} {became} ready in {_MOST_FAILED_STARTS} tries: {first_line}"
        lines = self._output.last_lines if self._output is not None else ()
        return "\n  ".join([f"{why}\nThe last lines that were printed:", *lines]) if lines else why

    def _is_ready(self, replica: _Replica) -> bool:
        if replica.process is None or not read_start_report(replica.directory).ready:
            return False
        self._has_been_ready = True
        return True

    def _supervise(self) -> None:
        while not self._can_start():
            if self._stopping.is_set():
                return
        while not self._stopping.is_set():
            if self._output is not None:
                self._output.pass_on()
            self._exit_records.catch_up()
            for replica in self._replicas:
                if replica.process is not None and replica.process.poll() is not None:
                    self._record_exit(replica)
                if replica.process is None and self._clock() >= replica.start_at and not self._stopping.is_set():
                    self._try_to_start(replica)
            if self._clock() >= self._next_hang_check:
                self._next_hang_check = self._clock() + CHECK_SECONDS
                for replica, process in self._running():
                    self._end_if_hung(replica, process)
            self._stopping.wait(_CHECK_SECONDS)

    def _can_start(self) -> bool:
        """Whether the fork server, if there is one, has done its imports; waits a moment for it."""
        try:
            return self._fork_server is None or self._fork_server.is_ready(_READY_SECONDS)
        except ForkServerGoneError:
            return True

    def _end_if_hung(self, replica: _Replica, process: Process) -> None:
        if self._hang_detector.is_hung(inflight_journal_path(replica.directory)):
            replica.is_stuck = True
            process.kill()

    def _try_to_start(self, replica: _Replica) -> None:
        try:
            self._start(replica)
        except OSError as error:
            # The machine lacks processes or memory now; it may have some later.
            why = f"{error.strerror}. {how_to_raise().rstrip('.')}" if is_lack_of_descriptors(error) else error.strerror
            replica.failure = replica.logged = f"it cannot be started: {why}"
            replica.failed_starts += 1
            pause = self._pause(replica, short=True)
            self._on_message(f"a worker process cannot be started: {why}; the next try is in {pause:g} s")

    def _start(self, replica: _Replica) -> None:
        replica.directory = self._exit_records.new_directory()
        replica.is_stuck = replica.is_asked = False
        options = replace(self._options, journals=str(replica.directory))
        command = self._command(options, replica.number, self._log_level)
        # The environment sets the device before anything is imported.
        device = {} if replica.device is None else {DEVICES_VARIABLE: replica.device}
        replica.process = self._forked(options, command, device) or self._spawned(options, command, device)
        replica.started_at = self._clock()

    def _forked(self, options: WorkerOptions, command: list[str], device: dict[str, str]) -> Process | None:
        """Have the fork server fork a worker process. Returns None if there is no fork server any more."""
        if self._fork_server is None:
            return None
        options = replace(options, parent=self._fork_server.pid)
        output = None if self._output is None else self._output.file
        interpreter, flag, *module = command
        assert (interpreter, flag) == (sys.executable, "-m")
        try:
            return self._fork_server.fork(module, {**options.to_environment(), **device}, output)
        except ForkServerGoneError:
            self._fork_server = None
            return None

    def _spawned(self, options: WorkerOptions, command: list[str], device: dict[str, str]) -> Process:
        return subprocess.Popen(
            command,
            env={**os.environ, **options.to_environment(), **device},
            stdin=subprocess.DEVNULL,
            stdout=self._output.file if self._output is not None else None,
            stderr=subprocess.STDOUT if self._output is not None else None,
            # Ctrl-C reaches only the supervisor, which then ends its worker processes in order.
            start_new_session=True,
        )

    def _record_exit(self, replica: _Replica) -> None:
        assert replica.process is not None
        process, replica.process = replica.process, None
        report = read_start_report(replica.directory)
        if process.returncode == RECYCLED:
            # It reached a limit of its own, so the next one starts at once.
            self._exit_records.record(process, replica.directory)
            self._exit_records.catch_up()
            replica.short_lives, replica.start_at = 0, self._clock()
            return
        stuck = replica.is_stuck
        # A process that left by itself refused its work. The next may do so too, however long it loads models.
        short = process.returncode == 0 or (self._clock() - replica.started_at < _SHORT_LIFE_SECONDS and not stuck)
        pause = self._pause(replica, short=short or not report.ready)
        how = self._exit_records.record(
            process, replica.directory, stuck=stuck, report=report, worker=self._described(replica, process)
        )
        self._exit_records.catch_up()
        if report.ready:
            self._has_been_ready = True
            replica.failed_starts = 0
        else:
            if self._output is not None:
                self._output.pass_on()
            replica.failure = report.failure or f"it {how}"
            replica.logged = report.logged or f"it {how}"
            replica.failed_starts += 1
        self._on_message(f"worker process {process.pid} {how}; the next starts in {pause:g} s")

    def _described(self, replica: _Replica, process: Process) -> WorkerInfo:
        """What a worker process registers in the store."""
        info = WorkerInfo.of_this_process(
            f"{self._options.service}-{replica.number}@{socket.gethostname()}",
            queues=self._options.queues,
            concurrency=self._options.concurrency or 0,
            supervisor=self._options.supervisor_token,
        )
        return replace(info, pid=process.pid)

    def _pause(self, replica: _Replica, *, short: bool) -> float:
        """Set when the next process starts. Returns the seconds until then."""
        replica.short_lives = replica.short_lives + 1 if short else 0
        # The exponent is bounded as well: 2.0**1024 overflows.
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(replica.short_lives, 20))
        replica.start_at = self._clock() + pause
        return pause
