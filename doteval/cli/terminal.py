"""How doteval prints: one console, one kind of table, one way to format numbers, durations and money."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from doteval.core.experiments import Counts, Evaluation, EvaluationStatus
from doteval.metrics import Interval

# Columns of output that goes into a file or a pipe, which has no width of its own.
_PIPE_WIDTH = 160
# Control characters let a model response move the cursor, ring the bell or recolour the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

STATUS_STYLES = {
    EvaluationStatus.RUNNING: "cyan",
    EvaluationStatus.COMPLETED: "green",
    EvaluationStatus.FAILED: "red",
    EvaluationStatus.CANCELLED: "yellow",
}


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        # rich would exit with 1, which means something else here.
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """Return a console on the current stdout, or stderr."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
    return _Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def table(*columns: str, left: int = 1) -> Table:
    """Return an empty table. The first `left` columns hold text, the others numbers."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for position, column in enumerate(columns):
        if position < left:
            made.add_column(column, overflow="fold", min_width=8)
        else:
            made.add_column(column, justify="right", no_wrap=True)
    return made


def plain(text: object) -> str:
    """Return a text with its control characters replaced, so that a terminal does not obey them."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def share(counts: Counts) -> str:
    """Return the finished rows and the total as ``12/100``."""
    return f"{count(counts.finished)}/{count(counts.total)}"


def few(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 row``, ``2 rows``, ``2 processes``."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def figure(value: float | None) -> str:
    """Return the value of a metric with three decimals, or one where it is 1,000 or more."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.1f}"


def interval(found: Interval | None) -> str:
    return "-" if found is None else f"{figure(found.low)} – {figure(found.high)}"


def duration(seconds: float | None) -> str:
    """Return a duration as people read it: ``0.42 s``, ``12.3 s``, ``4 min 02 s``, ``2 h 05 min``."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def money(dollars: float | None) -> str:
    if dollars is None:
        return "-"
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.4f}"


def status_text(status: EvaluationStatus | None) -> Text:
    return Text("-") if status is None else Text(status.value, style=STATUS_STYLES[status])


def names(evaluations: Sequence[Evaluation]) -> dict[int, str]:
    """Return the name of each evaluation by its id, with its file where two evaluations share a name."""
    taken = [evaluation.name for evaluation in evaluations]
    return {
        evaluation.id: plain(evaluation.name if taken.count(evaluation.name) == 1 else evaluation.spec.nodeid)
        for evaluation in evaluations
    }
