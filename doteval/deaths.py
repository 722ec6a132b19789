"""Deaths of worker processes: how each ended, which rows it took along, and what they had cost."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

from doteval.errors import StoreError
from doteval.flight_log import read_flight_log
from doteval.spending_log import read_spending_log
from doteval.store import CrashedRow, LostUsage, Store

# What the kernel does when memory runs out looks like this, and people may not know.
_MEMORY_HINT = (
    " (signal 9), which is what the kernel does when memory runs out: look at the memory of the machine or container, "
    "and try fewer worker processes or a lower --concurrency"
)


class Deaths:
    """Records in the store how worker processes ended.

    A death that cannot be recorded now, because the store is away, is kept and tried again. `told` is
    called with a line for people about rows that are given up, because they were in flight in as many
    processes that died as their evaluation allows.
    """

    def __init__(self, store: Store, told: Callable[[str], None]) -> None:
        self._store = store
        self._told = told
        self._unrecorded: deque[tuple[int, str, list[CrashedRow], list[LostUsage]]] = deque()
        # Only this user may read it, or lay false notes there.
        self.directory = Path(tempfile.mkdtemp(prefix="doteval-flights-"))

    def record(self, process: subprocess.Popen[bytes]) -> str:
        """Record the end of a process that has ended. Returns how it ended, for people."""
        code = process.returncode
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"left with exit code {code}"
        log = self.directory / f"{process.pid}.flights"
        # One that left in order has none in flight.
        taken = [CrashedRow(entry.evaluation_id, entry.row_index, entry.sample) for entry in read_flight_log(log)]
        log.unlink(missing_ok=True)
        spending = self.directory / f"{process.pid}.spending"
        lost = [
            LostUsage(each.place.evaluation, each.place.index, each.place.sample, each.usage, each.execution)
            for each in read_spending_log(spending)
        ]
        spending.unlink(missing_ok=True)
        self._unrecorded.append((process.pid, how, taken, lost))
        self.catch_up()
        return how

    def catch_up(self) -> bool:
        """Record what could not be recorded before. Returns whether nothing is left."""
        while self._unrecorded:
            pid, how, taken, lost = self._unrecorded[0]
            try:
                self._record(pid, how, taken, lost)
            except StoreError:
                return False
            self._unrecorded.popleft()
        return True

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _record(self, pid: int, how: str, taken: list[CrashedRow], lost: list[LostUsage]) -> None:
        if lost:
            self._store.usage.add_lost(lost, socket.gethostname(), pid)
        # First the crashes: once the process counts as gone, its rows are published again.
        if taken:
            reason = f"{how}{_MEMORY_HINT}" if how.endswith(signal.SIGKILL.name) else how
            given_up = self._store.crashes.record(taken, reason=reason, worker_id=None)
            for row in given_up:
                self._told(f"row {row.row_index} is given up: too many processes died with it in flight")
        self._store.workers.end_process(socket.gethostname(), pid, reason=how)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
