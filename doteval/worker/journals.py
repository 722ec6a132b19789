"""Opens the journals that the supervisor reads when this process dies: rows in flight, and their usage."""

from __future__ import annotations

from pathlib import Path

from doteval.core.private_directories import use_private_directory
from doteval.errors import WorkerError
from doteval.supervision.inflight_journal import InflightJournal, inflight_journal_path
from doteval.supervision.usage_journal import UsageJournal, usage_journal_path


def open_journals(directory: str | None, figures: str | None) -> tuple[InflightJournal | None, UsageJournal | None]:
    """Make the journals of this process in its directory; without one there are none, as no supervisor would read them.

    It and the directory of `figures` stay until this process ends, also if its supervisor is killed before.

    Raises WorkerError: if they cannot be written.
    """
    if directory is None:
        return None, None
    try:
        # Its own directory is in that of its supervisor.
        for used in filter(None, (str(Path(directory).parent), figures)):
            use_private_directory(Path(used))
        return InflightJournal(inflight_journal_path(directory)), UsageJournal(usage_journal_path(directory))
    except OSError as error:
        raise WorkerError(
            f"a worker process cannot note what it runs in {directory}: {error.strerror}",
            remedy="Make room there, or name another directory for temporary files with TMPDIR.",
        ) from error
