"""ExitRecords of worker processes: how each ended, which rows it took along, and what they had cost."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from doteval.core.states import WorkerEnd
from doteval.errors import StoreError
from doteval.store import CrashedRow, LostUsage, Store, TimedOutRow
from doteval.supervision.fork_server import UNKNOWN, Process
from doteval.supervision.hang_detector import under_way
from doteval.supervision.inflight_journal import InflightRow, inflight_journal_path, read_inflight_journal
from doteval.supervision.usage_journal import read_usage_journal, usage_journal_path

# What the kernel does when memory runs out looks like this, and people may not know.
_MEMORY_HINT = (
    " (signal 9), which is what the kernel does when memory runs out: look at the memory of the machine or container, "
    "and try fewer worker processes or a lower --concurrency"
)
_STUCK = "was killed: a row was over its time and could not be interrupted"


@dataclass(frozen=True, slots=True)
class _ExitRecord:
    """How a process ended, the rows that it took along, those that were its end, and what it had spent."""

    pid: int
    cause: WorkerEnd
    exit_code: int | None
    how: str
    taken: list[CrashedRow]
    timed_out: list[TimedOutRow]
    lost: list[LostUsage]


class ExitRecords:
    """Records in the store how worker processes ended.

    A death that cannot be recorded now, because the store is away, is kept and tried again. `told` is
    called with a line for people about rows that are given up, because they were in flight in as many
    processes that died as their evaluation allows.
    """

    def __init__(self, store: Store, told: Callable[[str], None]) -> None:
        self._store = store
        self._told = told
        self._unrecorded: deque[_ExitRecord] = deque()
        # Only this user may read it, or lay false notes there.
        self.directory = Path(tempfile.mkdtemp(prefix="doteval-flights-"))

    def inflight_journal(self, pid: int) -> Path:
        """Where a process notes its rows in flight."""
        return inflight_journal_path(pid, self.directory)

    def record(self, process: Process, *, stuck: bool = False) -> str:
        """Record the end of a process that has ended. Returns how it ended, for people.

        `stuck` says that it was killed for a row that was over its time. If no other call was under way, that one
        was it; else those in calls are suspects, which run alone from then on.
        """
        code = None if process.returncode == UNKNOWN else process.returncode
        cause, how = _ending(code)
        log = self.inflight_journal(process.pid)
        # One that left in order has none in flight.
        taken = read_inflight_journal(log)
        timed_out: list[InflightRow] = []
        if stuck:
            cause, how, taken = WorkerEnd.STUCK, _STUCK, under_way(log)
            if len({entry.called_at for entry in taken}) == 1:
                taken, timed_out = [], taken
        log.unlink(missing_ok=True)
        spending = usage_journal_path(process.pid, self.directory)
        lost = [
            LostUsage(each.scope.evaluation, each.scope.index, each.scope.sample, each.usage, each.execution)
            for each in read_usage_journal(spending)
        ]
        spending.unlink(missing_ok=True)
        now, monotonic = time.time(), time.monotonic()
        self._unrecorded.append(
            _ExitRecord(
                process.pid,
                cause,
                code,
                how,
                [CrashedRow(entry.evaluation_id, entry.row_index, entry.sample) for entry in taken],
                [
                    TimedOutRow(
                        entry.evaluation_id,
                        entry.row_index,
                        entry.sample,
                        started_at=now - (monotonic - entry.called_at),
                        seconds=monotonic - entry.called_at,
                    )
                    for entry in timed_out
                ],
                lost,
            )
        )
        self.catch_up()
        return how

    def catch_up(self) -> bool:
        """Record what could not be recorded before. Returns whether nothing is left."""
        while self._unrecorded:
            try:
                self._record(self._unrecorded[0])
            except StoreError:
                return False
            self._unrecorded.popleft()
        return True

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _record(self, death: _ExitRecord) -> None:
        if death.lost:
            self._store.usage.add_lost(death.lost, socket.gethostname(), death.pid)
        # First the crashes: once the process counts as gone, its rows are published again.
        if death.timed_out:
            self._store.crashes.time_out(death.timed_out)
        if death.taken:
            reason = (
                f"{death.how}{_MEMORY_HINT}"
                if death.cause is WorkerEnd.KILLED and death.exit_code == -signal.SIGKILL
                else death.how
            )
            given_up = self._store.crashes.record(death.taken, reason=reason, worker_id=None)
            for row in given_up:
                self._told(f"row {row.row_index} is given up: too many processes died with it in flight")
        self._store.workers.end_process(
            socket.gethostname(), death.pid, death.cause, reason=death.how, exit_code=death.exit_code
        )


def _ending(code: int | None) -> tuple[WorkerEnd, str]:
    """How a process ended that has this exit code, and the same for people."""
    if code is None:
        return WorkerEnd.LOST, "ended, nobody knows how"
    if code < 0:
        return WorkerEnd.KILLED, f"was killed by {_signal_name(-code)}"
    return WorkerEnd.EXITED, f"left with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
