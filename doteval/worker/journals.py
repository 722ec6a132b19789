"""Opens the journals that others read when this process dies: rows in flight, and their usage."""

from __future__ import annotations

from pathlib import Path

from doteval.core.private_directories import use_private_directory
from doteval.supervision.inflight_journal import InflightJournal, inflight_journal_path
from doteval.supervision.left_usage import no_room
from doteval.supervision.usage_journal import UsageJournal, usage_journal_path


def open_journals(directory: str, figures: str | None) -> tuple[InflightJournal, UsageJournal]:
    """Make the journals of this process in its directory.

    It and the directory of `figures` stay until this process ends, also if its supervisor is killed before.

    Raises WorkerError: if they cannot be written.
    """
    try:
        # Its own directory is in that of its supervisor.
        for used in filter(None, (str(Path(directory).parent), figures)):
            use_private_directory(Path(used))
        return InflightJournal(inflight_journal_path(directory)), UsageJournal(usage_journal_path(directory))
    except OSError as error:
        raise no_room(directory, error) from error
