"""Prints records, the attempts of a row, and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from doteval.analysis.figures import count
from doteval.cli.calls import print_calls
from doteval.cli.readable import print_record
from doteval.core.tables import Table
from doteval.core.wording import duration, in_sentences
from doteval.report.conversations import calls_of_row

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.core.experiments import Evaluation
    from doteval.store import Attempt, Store

# --errors shows so many different errors of an evaluation, and so many of its most recent failures.
ERRORS_SHOWN = 50
LAST_SHOWN = 5


def print_errors(console: Console, store: Store, evaluation: Evaluation) -> None:
    """Print the errors of an evaluation, equal ones in one line, and the most recent failures."""
    from doteval.cli import terminal

    found = store.results.errors(evaluation.id, ERRORS_SHOWN)
    if not found:
        return
    table = Table("error", "class", "rows", "example row", "message", left=2, prose=True)
    for error in found:
        table.add_row(
            error.type,
            error.error_class.value,
            count(error.count),
            str(error.example),
            in_sentences(error.message),
        )
    terminal.print_table(console, table)
    if len(found) == ERRORS_SHOWN:
        console.print(f"These are the {ERRORS_SHOWN} most frequent errors.", style="yellow")
    console.print("\nThe most recent failures:")
    for attempt in store.attempts.last_failures(evaluation.id, LAST_SHOWN):
        console.print(failure_line(attempt))
    console.print()


def failure_line(attempt: Attempt) -> str:
    """Return one line that says when, where and why a row failed."""
    error = attempt.error
    why = "no reason given" if error is None else f"{error.type}: {in_sentences(error.message)[:200]}"
    row = f"row {attempt.index}" + (f", sample {attempt.sample}" if attempt.sample else "")
    where = f" on {attempt.worker}" if attempt.worker else ""
    again = " (to be retried)" if attempt.to_be_retried else ""
    return f"  {attempt.started_at.astimezone():%Y-%m-%d %H:%M:%S}  {row}{where}  {why}{again}"


def print_row(console: Console, store: Store, evaluation: Evaluation, index: int) -> None:
    """Print everything that is known of one row: its records, every attempt, and its calls to models."""

    found = False
    for record in store.results.of_row(evaluation.id, index):
        print_record(console, record)
        found = True
    attempts = store.attempts.of_row(evaluation.id, index)
    if not found:
        console.print(f"row {index} is pending")
    if attempts:
        _print_attempts(console, attempts)
    print_calls(console, calls_of_row(store, evaluation, index))
    console.print()
    if found and any(attempt.to_be_retried for attempt in attempts):
        console.print("It will run again; the results so far stay until then.", style="yellow")


def _print_attempts(console: Console, attempts: Sequence[Attempt]) -> None:
    from doteval.cli import terminal

    table = Table("attempt", "status", "when", "where", "class", "time", "error", left=5, prose=True)
    number = 0
    for position, attempt in enumerate(attempts):
        number = 1 if position == 0 or attempt.sample != attempts[position - 1].sample else number + 1
        error = attempt.error
        table.add_row(
            f"{number}" + (f" of sample {attempt.sample}" if attempt.sample else ""),
            attempt.status.value,
            f"{attempt.started_at.astimezone():%Y-%m-%d %H:%M:%S}",
            attempt.worker or "-",
            "-" if error is None else error.error_class.value,
            duration(attempt.seconds),
            "-" if error is None else f"{error.type}: {error.message}",
        )
    terminal.print_table(console, table)


def print_records(console: Console, store: Store, evaluation: Evaluation) -> None:
    """Print every record of an evaluation."""
    for record in store.results.records(evaluation.id):
        print_record(console, record)
    console.print()
