"""Stores the usage that killed processes have left in their usage journals.

A supervisor stores that of its worker processes. Nobody does so for a process without one, as plain pytest, or if the
supervisor is killed too. Its journals stay on the machine, and the next command there that uses the same result store
brings them in. A journal names no store: evaluations have random uids, so the store that knows them is the right one.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from doteval.core.file_descriptors import remedy_for
from doteval.core.private_directories import JOURNALS, PrivateDirectory, left_directories
from doteval.errors import WorkerError
from doteval.store import LostUsage, Store
from doteval.supervision.start_reports import announced_tokens
from doteval.supervision.usage_journal import UnstoredUsage, read_usage_journal, usage_journal_path


class OwnJournals:
    """The directory for the journals of a process that has no supervisor.

    Raises WorkerError: it cannot be made.
    """

    def __init__(self) -> None:
        try:
            self._private = PrivateDirectory(JOURNALS)
            self.directory = Path(tempfile.mkdtemp(dir=self._private.path))
        except OSError as error:
            raise no_room(tempfile.gettempdir(), error) from error

    def close(self, store: Store, worker_id: int) -> None:
        """Store the usage that belongs to no result, as that of rows that were interrupted, and remove the directory.

        Raises StoreError: the next command on this machine does it.
        """
        try:
            lost = lost_usage(self.directory)
            if lost:
                store.usage.add_lost(lost, worker_id)
            self._private.remove()
        finally:
            self._private.leave()


def no_room(directory: str | Path, error: OSError) -> WorkerError:
    """The error of a process that cannot write its journals."""
    return WorkerError(
        f"this process cannot note what it runs in {directory}: {error.strerror}",
        remedy=remedy_for(error, "Make room there, or name another directory for temporary files with TMPDIR."),
    )


def store_left_usage(store: Store) -> None:
    """Store the usage of processes of this machine that were killed while they ran rows for a result store.

    Of several processes that do this at once, one stores it; and once, also if it is killed meanwhile.

    Raises StoreError: it stays where it is, for the next command.
    """
    for directory in left_directories(JOURNALS):
        lost = {process: lost_usage(process) for process in directory.iterdir() if process.is_dir()}
        uids = {each.evaluation_uid for of_process in lost.values() for each in of_process}
        if uids and not store.evaluations.statuses(uids):
            # They are in another store.
            continue
        for process, of_process in lost.items():
            if of_process:
                store.usage.add_lost(of_process, store.workers.id_of(announced_tokens(process)))
        shutil.rmtree(directory, ignore_errors=True)


def lost_usage(directory: Path) -> list[LostUsage]:
    """The usage in the journal of a process, each with the name of its execution: to store it twice changes nothing.

    directory: that of the process, in the one with the lock
    """
    whose = f"{directory.parent.name}/{directory.name}"
    return [
        LostUsage(
            each.scope.evaluation,
            each.scope.index,
            each.scope.sample,
            each.usage,
            _execution(whose, each) if each.execution is None else each.execution,
        )
        for each in read_usage_journal(usage_journal_path(directory))
    ]


def _execution(whose: str, unstored: UnstoredUsage) -> int:
    """A name for an execution that has ended without a result."""
    text = f"{whose} {unstored.scope.evaluation} {unstored.scope.index} {unstored.scope.sample}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
