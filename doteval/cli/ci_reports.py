"""What `submit`, `retry` and `watch` write for automations when the evaluations have ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from doteval.cli.options import grouped_options
from doteval.cli.streams import say, say_aside
from doteval.errors import UsageError

if TYPE_CHECKING:
    from doteval.analysis.judgement import Judgement
    from doteval.cli.thresholds import Thresholds

_STDOUT = Path("-")

_OPTIONS = (
    click.option(
        "--junitxml",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Write a JUnit XML file with one test case for each evaluation.",
    ),
    click.option(
        "--github",
        is_flag=True,
        help="In GitHub Actions: annotate what does not pass, and add the metrics to the job's summary.",
    ),
    click.option(
        "--github-comment",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        metavar="FILE",
        help="Write the same summary as Markdown for a comment; - is stdout.",
    ),
)


@dataclass(frozen=True, slots=True)
class CiReports:
    """The files that a command writes for automations.

    junitxml: the JUnit XML file, None for none.
    github: whether to print annotations and add to the summary of the job.
    github_comment: the file for the body of a comment, None for none.
    """

    junitxml: Path | None = None
    github: bool = False
    github_comment: Path | None = None

    def __bool__(self) -> bool:
        return self.github or bool(self._files)

    @property
    def _files(self) -> list[Path]:
        return [path for path in (self.junitxml, self.github_comment) if path is not None and path != _STDOUT]

    def prepare(self) -> None:
        """Remove the files of an earlier command, before anything is spent: they must not pass for those of this one.

        Raises UsageError: one cannot be written.
        """
        for path in self._files:
            _prepare(path)

    def write(self, judgement: Judgement) -> None:
        """Write all that is asked for.

        Raises UsageError: a file cannot be written.
        """
        if self.junitxml is not None:
            from doteval.analysis.junit import junit_xml

            _write(self.junitxml, junit_xml(judgement))
        if self.github or self.github_comment is not None:
            self._write_for_github(judgement)

    def _write_for_github(self, judgement: Judgement) -> None:
        from doteval.cli.github import error_commands, markdown

        if self.github:
            for line in error_commands(judgement, _path_in_repository):
                say(line)
            summary = os.environ.get("GITHUB_STEP_SUMMARY")
            if summary:
                # Other steps of the job, and other commands of this one, add theirs.
                _write(Path(summary), f"{markdown(judgement)}\n".encode(), mode="ab")
            else:
                say_aside("GITHUB_STEP_SUMMARY is not set, so there is no job to add a summary to")
        if self.github_comment == _STDOUT:
            say(markdown(judgement).rstrip("\n"))
        elif self.github_comment is not None:
            _write(self.github_comment, markdown(judgement).encode())


def refuse_with_detach(thresholds: Thresholds, reports: CiReports) -> None:
    """Raise click.UsageError if there are thresholds or reports: with --detach nothing waits for the figures."""
    if thresholds or reports:
        raise click.UsageError(
            "With --detach nothing waits for the figures. Give thresholds and reports to doteval watch."
        )


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


def _path_in_repository(path: str) -> str:
    """The path of an evaluation file in the repository of the job, where the store has it below pytest's root."""
    workspace, here = os.environ.get("GITHUB_WORKSPACE"), Path.cwd()
    if workspace and here.is_relative_to(workspace):
        for base in (here, *here.parents):
            if base.is_relative_to(workspace) and (base / path).is_file():
                return (base / path).relative_to(workspace).as_posix()
    return path


def _write(path: Path, content: bytes, mode: Literal["wb", "ab"] = "wb") -> None:
    try:
        with path.open(mode) as file:
            file.write(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written: {error.strerror or error}")


report_options = grouped_options("reports", CiReports, _OPTIONS)
"""Adds the options of reports to a command, which gets `CiReports`."""
