"""Start reports: a worker process reports to its supervisor whether it became ready, in a file that outlives it.

It also tells it the tokens under which it registers in the store, so that the supervisor can report its end.

The result store would not do: a process may be unable to start because it cannot open the store, and a process that
was ready looks the same there as one that never was, once it has left.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_REPORT: Final = "start"
_TOKENS: Final = "tokens"


@dataclass(frozen=True, slots=True)
class StartReport:
    """Whether a process became ready for row tasks.

    `failure` is why not, None if it did not say, and `logged` the same for logs, without the text of other code's
    exceptions. `registered` is whether it has recorded that in the store itself. `left` is why a process that was ready
    has left in order, without the text of other code's exceptions.
    """

    ready: bool = False
    failure: str | None = None
    logged: str | None = None
    registered: bool = False
    left: str | None = None


def write_start_report(directory: str | None, report: StartReport) -> None:
    """Report how the start of this process went, unless there is no `directory` for a supervisor to read it from."""
    if directory is not None:
        # A full disk must not end a process that is ready, nor hide why another cannot start.
        with contextlib.suppress(OSError):
            new = Path(directory) / f"{_REPORT}.new"
            new.write_text(json.dumps(asdict(report)), encoding="utf-8")
            # The supervisor reads the last report or this one, and never half of it.
            new.replace(Path(directory) / _REPORT)


def read_start_report(directory: Path) -> StartReport:
    """What the process with this directory has reported so far."""
    try:
        return StartReport(**json.loads((directory / _REPORT).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        # None was written, or there was no room for it.
        return StartReport()


def announce_token(directory: str | None, token: str) -> None:
    """Tell the supervisor, if there is one, that this process is about to register under a token."""
    if directory is not None:
        # On a full disk the end of this process is noticed by its missing heartbeat.
        with contextlib.suppress(OSError), (Path(directory) / _TOKENS).open("a", encoding="ascii") as file:
            file.write(f"{token}\n")


def announced_tokens(directory: Path) -> list[str]:
    """The tokens under which the process with this directory has registered, or was about to."""
    try:
        return (directory / _TOKENS).read_text(encoding="ascii").split()
    except OSError:
        return []
