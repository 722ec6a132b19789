"""Opens the journals that the supervisor reads when this process dies: rows in flight, and their usage."""

from __future__ import annotations

import os

from doteval.errors import WorkerError
from doteval.supervision.inflight_journal import InflightJournal, inflight_journal_path
from doteval.supervision.usage_journal import UsageJournal, usage_journal_path


def open_journals(directory: str | None) -> tuple[InflightJournal | None, UsageJournal | None]:
    """Make the journals of this process in a directory; without one there are none, as no supervisor would read them.

    Raises WorkerError: if they cannot be written.
    """
    if directory is None:
        return None, None
    pid = os.getpid()
    try:
        return InflightJournal(inflight_journal_path(pid, directory)), UsageJournal(usage_journal_path(pid, directory))
    except OSError as error:
        raise WorkerError(
            f"a worker process cannot note what it runs in {directory}: {error.strerror}",
            remedy="Make room there, or name another directory for temporary files with TMPDIR.",
        ) from error
