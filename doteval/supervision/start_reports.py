"""Start reports: a worker process reports to its supervisor whether it became ready, in a file that outlives it.

The result store would not do: a process may be unable to start because it cannot open the store, and a process that
was ready looks the same there as one that never was, once it has left.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StartReport:
    """Whether a process became ready for row tasks.

    `failure` is why not, None if it did not say, and `logged` the same for logs, without the text of other code's
    exceptions. `registered` is whether it has recorded that in the store itself.
    """

    ready: bool = False
    failure: str | None = None
    logged: str | None = None
    registered: bool = False


def write_start_report(directory: str | None, report: StartReport) -> None:
    """Report how the start of this process went, unless there is no `directory` for a supervisor to read it from."""
    if directory is not None:
        # A full disk must not end a process that is ready, nor hide why another cannot start.
        with contextlib.suppress(OSError):
            _path(Path(directory), os.getpid()).write_text(json.dumps(asdict(report)), encoding="utf-8")


def read_start_report(directory: Path, pid: int) -> StartReport:
    """What the process `pid` has reported so far."""
    try:
        return StartReport(**json.loads(_path(directory, pid).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        # None was written, or it is being written now.
        return StartReport()


def take_start_report(directory: Path, pid: int) -> StartReport:
    """What a process reported that has ended. Removes its report: another may get the same id."""
    report = read_start_report(directory, pid)
    _path(directory, pid).unlink(missing_ok=True)
    return report


def _path(directory: Path, pid: int) -> Path:
    return directory / f"{pid}.start"
