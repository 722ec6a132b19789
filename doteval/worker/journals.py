"""Row logs: where a worker process notes its rows in flight and what they have used, for when it dies."""

from __future__ import annotations

import os

from doteval.errors import WorkerError
from doteval.supervision.inflight_journal import InflightJournal, inflight_journal_path
from doteval.supervision.usage_journal import UsageJournal, usage_journal_path


def open_journals(directory: str | None) -> tuple[InflightJournal | None, UsageJournal | None]:
    """The logs of this process in a directory; none where no directory is given, since nobody would read them.

    Raises WorkerError if they cannot be made there.
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
