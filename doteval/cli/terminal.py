"""How doteval prints: one console and tables; `doteval.analysis.figures` writes numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from doteval.core.experiments import EvaluationStatus
from doteval.core.tables import Cell, Table, output_width
from doteval.core.wording import plain

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


def status_cell(status: EvaluationStatus | None, *, abandoned: bool = False) -> Cell:
    """Return a status in its colour. `abandoned`: nobody runs what is running by its status."""
    if abandoned:
        return Cell("running, by nobody", "red")
    return Cell("-") if status is None else Cell(status.value, STATUS_STYLES[status])
