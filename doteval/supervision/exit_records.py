"""Records how worker processes ended: the reason, the rows that were in flight, and their usage."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from doteval.core import clocks
from doteval.core.private_directories import JOURNALS, PrivateDirectory
from doteval.core.states import WorkerEnd
from doteval.core.wording import counted
from doteval.errors import StoreError
from doteval.store import CrashedRow, LostUsage, Store, TimedOutRow, WorkerInfo
from doteval.supervision.fork_server import UNKNOWN, Process
from doteval.supervision.hang_detector import rows_in_calls
from doteval.supervision.inflight_journal import InflightRow, inflight_journal_path, read_inflight_journal
from doteval.supervision.left_usage import lost_usage
from doteval.supervision.start_reports import StartReport, announced_tokens

# The kernel's out-of-memory killer leaves no other trace, and users may not know it.
_MEMORY_HINT = (
    " (signal 9), which is what the kernel does when memory runs out: look at the memory of the machine or container, "
    "and try fewer worker processes or a lower --concurrency"
)
_AT_ONCE = "was killed: the command was to end without waiting for rows in flight"
_STUCK = "was killed: a row was over its time and could not be interrupted"


@dataclass(frozen=True, slots=True)
class _ExitRecord:
    """How a process ended: the rows in flight, those whose time limit ended it, and the usage that is not stored.

    `tokens` are those of its registrations, and `reason` is text for the user. `unregistered` describes a process that
    may have ended before it registered in the store. Its `directory` is kept until all this is stored, so that
    the usage is not lost if the supervisor is killed before.
    """

    tokens: list[str]
    cause: WorkerEnd
    exit_code: int | None
    reason: str
    unregistered: WorkerInfo | None
    taken: list[CrashedRow]
    timed_out: list[TimedOutRow]
    directory: Path
    lost: list[LostUsage]


class ExitRecords:
    """Records in the store how worker processes ended.

    A record that cannot be written because the store is unavailable is kept, and the next `catch_up` tries it again.

    on_message: called with a line for the user about each row that is given up, because it was in flight in as many
        processes that died as its evaluation allows.
    """

    def __init__(self, store: Store, on_message: Callable[[str], None]) -> None:
        self._store = store
        self._on_message = on_message
        self._unrecorded: deque[_ExitRecord] = deque()
        # No other user may read the journals or forge them.
        self._private = PrivateDirectory(JOURNALS)
        self.directory = self._private.path

    def new_directory(self) -> Path:
        """A directory for the journals and reports of one process. No later process uses it, as one may its pid."""
        return Path(tempfile.mkdtemp(dir=self.directory))

    def record(
        self,
        process: Process,
        directory: Path,
        *,
        stuck: bool = False,
        at_once: bool = False,
        report: StartReport | None = None,
        worker: WorkerInfo | None = None,
    ) -> str:
        """Note the end of a process that has ended, for `catch_up`. Returns how it ended, as text for the user.

        directory: that of the process, which is removed once this is recorded
        stuck: whether it was killed because a row exceeded its time limit. If no other call was running, that row has
            timed out; otherwise all rows in calls are suspects, which run alone from then on.
        at_once: whether it was killed because rows in flight were not to be waited for any longer; none is to blame
        report: how its start went; None if that does not matter
        worker: registers the process in the store if it ended before it could do so itself
        """
        code = None if process.returncode == UNKNOWN else process.returncode
        cause, how = _ending(code)
        if code == 0 and report is not None and report.left is not None:
            how = f"left: {report.left}"
        reason = how
        if report is not None and not report.ready and cause is WorkerEnd.EXITED:
            first_line = (report.failure or f"it {how}").partition("\n")[0]
            cause, reason = WorkerEnd.FAILED_TO_START, f"could not start: {first_line}"
        log = inflight_journal_path(directory)
        # A process that left in order has none.
        taken = read_inflight_journal(log)
        timed_out: list[InflightRow] = []
        if stuck:
            cause, taken = WorkerEnd.STUCK, rows_in_calls(log)
            how = reason = _STUCK
            if len({entry.called_at for entry in taken}) == 1:
                taken, timed_out = [], taken
        elif at_once and cause is WorkerEnd.KILLED:
            cause, how, taken = WorkerEnd.LEFT, _AT_ONCE, []
            reason = how
        now, monotonic = clocks.now(), clocks.monotonic()
        self._unrecorded.append(
            _ExitRecord(
                announced_tokens(directory),
                cause,
                code,
                reason,
                worker if report is not None and not report.ready and not report.registered else None,
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
                directory,
                lost_usage(directory),
            )
        )
        return how

    def catch_up(self) -> bool:
        """Write to the store what is noted. Returns whether nothing is left."""
        while self._unrecorded:
            try:
                self._record(self._unrecorded[0])
            except StoreError:
                return False
            shutil.rmtree(self._unrecorded.popleft().directory, ignore_errors=True)
        return True

    def close(self) -> None:
        """Remove the directories of all processes, unless the store lacks what they used."""
        if not self._unrecorded:
            self._private.remove()
            return
        ends = counted(len(self._unrecorded), "worker process", "worker processes")
        self._on_message(
            f"the ends of {ends} cannot be recorded: the store is away. The next command that uses it on this machine "
            "adds what their rows used."
        )
        self._private.leave()

    def _record(self, record: _ExitRecord) -> None:
        if record.lost:
            self._store.usage.add_lost(record.lost, self._store.workers.id_of(record.tokens))
        # The crashes come first: once the process is recorded as ended, its rows are published again.
        if record.timed_out:
            self._store.crashes.time_out(record.timed_out)
        if record.taken:
            reason = (
                f"{record.reason}{_MEMORY_HINT}"
                if record.cause is WorkerEnd.KILLED and record.exit_code == -signal.SIGKILL
                else record.reason
            )
            given_up = self._store.crashes.record(record.taken, reason=reason, worker_id=None)
            for row in given_up:
                self._on_message(f"row {row.row_index} is given up: too many processes died with it in flight")
        ended = self._store.workers.end_process(
            record.tokens, record.cause, reason=record.reason, exit_code=record.exit_code
        )
        if ended is None and record.unregistered is not None:
            # `doteval status` should say why it could not start.
            worker_id = self._store.workers.begin(record.unregistered)
            self._store.workers.end(worker_id, record.cause, reason=record.reason)


def _ending(code: int | None) -> tuple[WorkerEnd, str]:
    """How a process with this exit code ended, and the same as text for the user."""
    if code is None:
        return WorkerEnd.LOST, "ended for an unknown reason"
    if code < 0:
        return WorkerEnd.KILLED, f"was killed by {_signal_name(-code)}"
    return WorkerEnd.EXITED, f"left with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
