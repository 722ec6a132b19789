"""Lays parametrized evaluations out as a matrix: parameters by functions, or by their last parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from doteval.store.experiment_contents import EvaluationCell

# What a matrix shows, at most.
MOST_LINES = 40
MOST_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class ParameterMatrix:
    """A matrix of the first metrics of evaluations.

    corner: what the lines and the columns are.
    lines: each with its name and its cells by column, None where there is no such evaluation.
    left_out: evaluations that do not fit.
    """

    corner: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[EvaluationCell | None, ...]], ...]
    left_out: int


def parameter_matrix(cells: Sequence[EvaluationCell]) -> ParameterMatrix | None:
    """The matrix of evaluations with parameters, None if it would be a list.

    Of several functions, the lines are the parameters and the columns the functions. Of one function with several
    parameters, the columns are the values of the last one: pytest joins them with dashes.

    >>> cell = lambda name: EvaluationCell("eval_x.py", name, None, "match accuracy", 0.5)
    >>> found = parameter_matrix([cell("eval_x[small-en]"), cell("eval_x[large-en]"), cell("eval_x[large-de]")])
    >>> found.columns, [name for name, _ in found.lines]
    (('en', 'de'), ['small', 'large'])
    """
    placed: dict[tuple[str, str], EvaluationCell] = {}
    functions = {(cell.path, cell.name.partition("[")[0]) for cell in cells}
    several_files = len({path for path, _ in functions}) > 1
    for cell in cells:
        function, _, rest = cell.name.partition("[")
        parameters = rest.removesuffix("]")
        if len(functions) > 1:
            place = parameters, f"{cell.path}::{function}" if several_files else function
        else:
            line, dash, column = parameters.rpartition("-")
            if not dash:
                return None
            place = line, column
        # Two evaluations at one place differ in what a dash does not part.
        if place in placed:
            return None
        placed[place] = cell
    lines = list(dict.fromkeys(line for line, _ in placed))
    columns = list(dict.fromkeys(column for _, column in placed))
    # A matrix that is nearly empty says less than the table does.
    if len(lines) < 2 or len(columns) < 2 or 3 * len(placed) < len(lines) * len(columns):
        return None
    shown_lines, shown_columns = lines[:MOST_LINES], columns[:MOST_COLUMNS]
    found = tuple((line, tuple(placed.get((line, column)) for column in shown_columns)) for line in shown_lines)
    shown = sum(cell is not None for _, of_line in found for cell in of_line)
    corner = "parameters by function" if len(functions) > 1 else "by the last parameter"
    return ParameterMatrix(corner, tuple(shown_columns), found, len(placed) - shown)


def heat(value: float | None) -> str:
    """The class of a cell by its value, for values from 0 to 1.

    >>> heat(0.0), heat(0.99), heat(7.5)
    ('heat-0', 'heat-9', '')
    """
    return f"heat-{min(9, int(10 * value))}" if value is not None and 0 <= value <= 1 else ""
