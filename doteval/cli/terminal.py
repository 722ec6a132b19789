"""How doteval prints: one console, tables, and one way to format numbers and money."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from doteval.core.experiments import Counts, Evaluation, EvaluationStatus
from doteval.core.tables import Cell, Table, output_width
from doteval.core.wording import plain
from doteval.metrics import Interval

STATUS_STYLES = {
    EvaluationStatus.RUNNING: "cyan",
    EvaluationStatus.COMPLETED: "green",
    EvaluationStatus.FAILED: "red",
    EvaluationStatus.SKIPPED: "yellow",
    EvaluationStatus.CANCELLED: "yellow",
}


class _Console(Console):
    """Prints no control characters but its own, whatever text it is given."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, Text):
            renderable.plain = plain(renderable.plain)
        return super().render(renderable, options)

    def on_broken_pipe(self) -> NoReturn:
        # rich would exit with 1, which means something else here.
        raise BrokenPipeError


def console(**options: Any) -> Console:
    """Return a console on the current stdout. `options` are those of rich's."""
    # rich follows a terminal that changes its width.
    width = None if sys.stdout.isatty() else output_width(is_terminal=False)
    return _Console(**{"width": width, "highlight": False, "markup": False, "emoji": False} | options)


def print_table(console: Console, table: Table) -> None:
    """Print a table. Where the console is too narrow for it, its rows are stacked."""
    rule = "-" if console.options.ascii_only else "─"
    for line in table.lines(console.width, rule=rule):
        # No line is wrapped or cut by rich; a name that is too long for the terminal continues on its next line.
        console.print(Text.assemble(*((cell.text, cell.style) for cell in line)), soft_wrap=True)


def count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def share(counts: Counts) -> str:
    """Return the finished rows and the total as ``12/100``."""
    return f"{count(counts.finished)}/{count(counts.total)}"


def rows_of(counts: Counts) -> str:
    """Return the finished rows and the total as ``12/100 rows``."""
    return f"{share(counts)} {'row' if counts.total == 1 else 'rows'}"


def failures(counts: Counts) -> str:
    """Return the failed and the skipped rows as ``, 2 failed, 1 skipped``; empty without any."""
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    return f"{failed}, {counts.skipped:,} skipped" if counts.skipped else failed


def figure(value: float | None) -> str:
    """Return the value of a metric with three decimals, or one where it is 1,000 or more."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.1f}"


def signed(number: float) -> str:
    """Return a difference as `figure` does, with its sign; a small one with two digits, since 0.0004 is not 0.000."""
    shown = f"{number:+.3f}" if abs(number) < 1000 else f"{number:+,.1f}"
    return f"{number:+.2g}" if float(shown.replace(",", "")) == 0 and number else shown


def interval(found: Interval | None) -> str:
    return "-" if found is None else f"{figure(found.low)} – {figure(found.high)}"


def money(dollars: float | None) -> str:
    if dollars is None:
        return "-"
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.4f}"


def status_cell(status: EvaluationStatus | None, *, abandoned: bool = False) -> Cell:
    """Return a status in its colour. `abandoned`: nobody runs what is running by its status."""
    if abandoned:
        return Cell("running, by nobody", "red")
    return Cell("-") if status is None else Cell(status.value, STATUS_STYLES[status])


def names(evaluations: Sequence[Evaluation]) -> dict[int, str]:
    """Return the name of each evaluation by its id, with its file where two evaluations share a name."""
    taken = [evaluation.name for evaluation in evaluations]
    return {
        evaluation.id: evaluation.name if taken.count(evaluation.name) == 1 else evaluation.spec.nodeid
        for evaluation in evaluations
    }
