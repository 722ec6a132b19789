"""What `submit`, `retry` and `watch` write for automations when the evaluations have ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from doteval.errors import UsageError

if TYPE_CHECKING:
    from doteval.analysis.judgement import Judgement

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--junitxml",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Write a JUnit XML file with one test case for each evaluation.",
    ),
)


def report_options(command: Command) -> Command:
    """Add the options that make a `CiReports`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class CiReports:
    """The files that a command writes for automations.

    junitxml: the JUnit XML file, None for none.
    """

    junitxml: Path | None = None

    def __bool__(self) -> bool:
        return self.junitxml is not None

    def prepare(self) -> None:
        """Remove the file of an earlier command, before anything is spent: it must not pass for that of this one.

        Raises UsageError: it cannot be written.
        """
        if self.junitxml is not None:
            _prepare(self.junitxml)

    def write(self, judgement: Judgement) -> None:
        """Write all that is asked for.

        Raises UsageError: a file cannot be written.
        """
        if self.junitxml is not None:
            from doteval.analysis.junit import junit_xml

            _write(self.junitxml, junit_xml(judgement))


def _prepare(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            # A pipe or a device, such as /dev/stdout.
            return
        path.open("ab").close()
        if not path.is_symlink():
            path.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written: {error.strerror or error}")
