"""Lays parametrized evaluations out as a matrix: parameters by functions, or some parameters by the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from doteval.store.experiment_contents import EvaluationCell

# What a matrix shows, at most.
MOST_LINES = 40
MOST_COLUMNS = 16
# Sets of columns that are tried.
_WAYS = 12


@dataclass(frozen=True, slots=True)
class ParameterMatrix:
    """A matrix of the first metrics of evaluations.

    corner: what the lines and the columns are.
    metric: what the cells show, empty if they do not all show the same.
    lines: each with its name and its cells by column, None where there is no such evaluation.
    left_out: evaluations that do not fit.
    """

    corner: str
    metric: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[EvaluationCell | None, ...]], ...]
    left_out: int


def parameter_matrix(cells: Sequence[EvaluationCell]) -> ParameterMatrix | None:
    """The matrix of evaluations with parameters, None if it would be a list.

    Of several functions, the lines are the parameters and the columns the functions. Of one function with several
    parameters, the columns are the values of the last ones. pytest joins values with dashes, and they may hold dashes
    themselves; `_parted` finds out which of them part.

    >>> cell = lambda name: EvaluationCell("eval_x.py", name, None, "match accuracy", 0.5)
    >>> found = parameter_matrix([cell("eval_x[en-gpt-4o]"), cell("eval_x[en-small]"), cell("eval_x[de-gpt-4o]")])
    >>> found.columns, [name for name, _ in found.lines]
    (('gpt-4o', 'small'), ['en', 'de'])
    """
    placed: dict[tuple[str, str], EvaluationCell] = {}
    functions = {(cell.path, cell.name.partition("[")[0]) for cell in cells}
    several_files = len({path for path, _ in functions}) > 1
    parted = {} if len(functions) > 1 else _parted([_parameters(cell) for cell in cells])
    if parted is None:
        return None
    for cell in cells:
        function, parameters = cell.name.partition("[")[0], _parameters(cell)
        if len(functions) > 1:
            place = parameters, f"{cell.path}::{function}" if several_files else function
        else:
            place = parted[parameters]
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
    corner = "parameters by function" if len(functions) > 1 else "parameters"
    metrics = {cell.metric for cell in placed.values() if cell.metric}
    metric = metrics.pop() if len(metrics) == 1 else ""
    return ParameterMatrix(corner, metric, tuple(shown_columns), found, len(placed) - shown)


def _parameters(cell: EvaluationCell) -> str:
    return cell.name.partition("[")[2].removesuffix("]")


def _parted(names: Sequence[str]) -> dict[str, tuple[str, str]] | None:
    """The line and the column of each name, None if no dash parts all of them.

    What follows one beginning are the columns, if each name ends with one of them. Of several such ways, that with the
    fewest lines and columns is taken, and of equal ones that with the shortest names of columns.

    >>> _parted(["en-gpt-4o", "en-small", "de-gpt-4o"])["en-gpt-4o"]
    ('en', 'gpt-4o')
    """
    ways: dict[str, set[str]] = {}
    for name in names:
        for place in (place for place, letter in enumerate(name) if letter == "-"):
            ways.setdefault(name[:place], set()).add(name[place + 1 :])
    best: tuple[tuple[int, int], dict[str, tuple[str, str]]] | None = None
    # Columns that follow many beginnings hold many names.
    beginnings = Counter(map(frozenset, ways.values()))
    for columns in sorted(beginnings, key=lambda each: beginnings[each] * len(each), reverse=True)[:_WAYS]:
        parted = {name: found for name in names if (found := _place(name, columns)) is not None}
        lines = {line for line, _ in parted.values()}
        size = len(lines) + len(columns), sum(map(len, columns))
        if len(parted) == len(set(names)) and (best is None or size < best[0]):
            best = size, parted
    return None if best is None else best[1]


def _place(name: str, columns: Collection[str]) -> tuple[str, str] | None:
    """The name parted at the first dash that a column follows."""
    for place in (place for place, letter in enumerate(name) if letter == "-"):
        if name[place + 1 :] in columns:
            return name[:place], name[place + 1 :]
    return None


def heat(value: float | None) -> str:
    """The class of a cell by its value, for values from 0 to 1.

    >>> heat(0.0), heat(0.99), heat(7.5)
    ('heat-0', 'heat-9', '')
    """
    return f"heat-{min(9, int(10 * value))}" if value is not None and 0 <= value <= 1 else ""
