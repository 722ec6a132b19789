"""The table of experiments and parameters × evaluations that `doteval compare --matrix` prints."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from doteval.analysis.figures import failures, figure, rows_of
from doteval.analysis.summary import MetricValue
from doteval.cli import terminal
from doteval.cli.show import read_figures
from doteval.core.experiments import EvaluationStatus
from doteval.core.tables import Table
from doteval.store import Store
from doteval.store.comparisons import Selection, check_scores


@dataclass(slots=True)
class Matrix:
    """The value of each column, such as ``eval_x exact_match.accuracy``, for each experiment and parameter.

    notes: evaluations whose figures are not final.
    """

    columns: dict[tuple[str, str, str], None] = field(default_factory=dict)
    lines: dict[tuple[str, str], dict[tuple[str, str, str], MetricValue]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def matrix_of(store: Store, selected: Sequence[Selection], scores: Collection[str]) -> Matrix:
    """Read the metrics of evaluations. A line is an experiment with one set of parameters.

    scores: only these; all without any.

    Raises NotFoundError: no evaluation has one of the scores.
    """
    matrix = Matrix()
    known: dict[str, None] = {}
    for selection in selected:
        for evaluation in selection.evaluations:
            function, bracket, parameters = evaluation.name.partition("[")
            line = matrix.lines.setdefault((selection.experiment.name, bracket + parameters), {})
            for score in read_figures(store, evaluation).summary:
                known.setdefault(score.name)
                for metric in score.metrics:
                    if not scores or score.name in scores:
                        column = (function, score.name, metric.name)
                        matrix.columns.setdefault(column)
                        line[column] = metric
            if evaluation.status is not EvaluationStatus.COMPLETED or evaluation.counts.failed:
                failed = failures(evaluation.counts)
                what = f"{evaluation.status.value}, {rows_of(evaluation.counts)}{failed}"
                matrix.notes.append(f"{selection.experiment.name} {evaluation.name}: {what}")
    check_scores(scores, known, "no evaluation has")
    return matrix


def print_matrix(matrix: Matrix) -> None:
    """Print the table. Where the terminal is too narrow for it, each cell has a line of its own."""
    console = terminal.console()
    several = len({experiment for experiment, _ in matrix.lines}) > 1
    table = Table("", *(_title(column) for column in matrix.columns))
    for (experiment, parameters), line in matrix.lines.items():
        name = f"{experiment}{parameters}" if several or not parameters else parameters
        values = (line.get(column) for column in matrix.columns)
        table.add_row(name, *("-" if value is None else figure(value.value) for value in values))
    terminal.print_table(console, table)
    for note in matrix.notes:
        console.print(note, style="yellow", soft_wrap=True)


def matrix_document(matrix: Matrix) -> dict[str, Any]:
    """The table for ``--json``: one entry for each figure."""
    return {
        "figures": [
            {
                "experiment": experiment,
                "parameters": parameters.strip("[]") or None,
                "evaluation": column[0],
                "score": column[1],
                "metric": column[2],
                "value": value.value,
                "interval": None if value.interval is None else list(value.interval),
                "n": value.n,
                "failed": value.failed,
            }
            for (experiment, parameters), line in matrix.lines.items()
            for column, value in line.items()
        ],
        "notes": matrix.notes,
    }


def _title(column: tuple[str, str, str]) -> str:
    function, score, metric = column
    return f"{function} {score}.{metric}"
