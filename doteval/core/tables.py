"""Lays out tables for a terminal. No cell is ever cut: where a table is too wide, its rows are stacked."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from doteval.core.wording import plain

_GAP = "  "
# Text is wrapped only where it keeps this many terminal columns: in the last column of a table, and after a title.
_LEAST_WRAPPED = 30
_LEAST_STACKED = 16
# Columns of output that goes into a file or a pipe, which has no width of its own.
_PIPE_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Cell:
    """A text with the names of its styles, such as ``"bold red"``."""

    text: str
    style: str = ""


class Table:
    r"""A table: titles, and rows that are added one by one.

    left: the first columns, as many, hold text; the others hold figures
    prose: the last column holds text that may continue on further lines

    >>> table = Table("score", "value", "n")
    >>> table.add_row("exact_match", "0.645", "31")
    >>> for line in table.lines(80):
    ...     print("".join(cell.text for cell in line))
    score        value   n
    exact_match  0.645  31
    >>> for line in table.lines(20):
    ...     print("".join(cell.text for cell in line))
    score  exact_match
    value  0.645
    n      31
    """

    def __init__(self, *titles: str, left: int = 1, prose: bool = False) -> None:
        self._titles = [Cell(title, "bold") for title in titles]
        self._left = left
        self._prose = prose
        self._rows: list[list[Cell]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add_row(self, *cells: str | Cell) -> None:
        """Add a row, with one cell for each title."""
        row = [_on_one_line(cell) for cell in cells]
        assert len(row) == len(self._titles)
        self._rows.append(row)

    def lines(self, width: int, *, rule: str = "") -> Iterator[list[Cell]]:
        """Yield the lines of the table for a terminal of `width` columns, each as the texts that it consists of.

        Where a row with all its cells is wider, each cell has a line of its own, after its title.

        rule: the character of the line below the titles; none if it is empty
        """
        widths = [max(map(_columns, column)) for column in zip(self._titles, *self._rows, strict=True)]
        fixed = widths[:-1] if self._prose else widths
        room = width - sum(fixed) - len(_GAP) * (len(widths) - 1)
        if self._prose:
            room = min(room, widths[-1])
            fits = room == widths[-1] or room >= _LEAST_WRAPPED
            widths = [*fixed, room]
        else:
            fits = room >= 0
        if not fits:
            yield from self._stacked(width)
            return
        yield from self._line(self._titles, widths)
        if rule:
            yield [Cell(rule * (sum(widths) + len(_GAP) * (len(widths) - 1)))]
        for row in self._rows:
            yield from self._line(row, widths)

    def _line(self, row: list[Cell], widths: list[int]) -> Iterator[list[Cell]]:
        """The line of a row, and the further lines of its last cell."""
        last, *more = wrap(row[-1].text, widths[-1]) if self._prose else [row[-1].text]
        line: list[Cell] = []
        for position, (cell, width) in enumerate(zip([*row[:-1], Cell(last, row[-1].style)], widths, strict=True)):
            filler = " " * (width - _columns(cell))
            if position < self._left or (self._prose and position == len(row) - 1):
                before, after = "", filler
            else:
                before, after = filler, ""
            line += [Cell((_GAP if position else "") + before), cell, Cell(after)]
        while line and not line[-1].text.strip():
            line.pop()
        yield line
        indent = " " * (sum(widths[:-1]) + len(_GAP) * (len(widths) - 1))
        for text in more:
            yield [Cell(indent), Cell(text, row[-1].style)]

    def _stacked(self, width: int) -> Iterator[list[Cell]]:
        labels = max(map(_columns, self._titles))
        indent = labels + len(_GAP)
        for number, row in enumerate(self._rows):
            if number:
                yield []
            for position, (title, cell) in enumerate(zip(self._titles, row, strict=True)):
                label = title.text + " " * (labels - _columns(title)) + _GAP
                style = cell.style or ("" if position else "bold")
                text, *more = wrap(cell.text, max(width - indent, _LEAST_STACKED))
                yield [Cell(label), Cell(text, style)] if cell.text else [title]
                for each in more:
                    yield [Cell(" " * indent), Cell(each, style)]


def output_width(*, is_terminal: bool) -> int:
    """Return how many columns output has: those of the terminal or of the variable COLUMNS, else 160."""
    return shutil.get_terminal_size().columns if is_terminal or os.environ.get("COLUMNS") else _PIPE_WIDTH


def wrap(text: str, width: int) -> list[str]:
    """Return a text as lines of at most `width` terminal columns, broken between words. Longer words stay whole.

    >>> wrap("no such word", 7)
    ['no such', 'word']
    """
    lines: list[str] = []
    for word in text.split(" "):
        if lines and columns_of(lines[-1]) + 1 + columns_of(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: East Asian characters take two, combining ones none.

    >>> columns_of("rows"), columns_of("行")
    (4, 2)
    """
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(character) or unicodedata.category(character) == "Cf"
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def _columns(cell: Cell) -> int:
    return columns_of(cell.text)


def _on_one_line(cell: str | Cell) -> Cell:
    text, style = (cell.text, cell.style) if isinstance(cell, Cell) else (cell, "")
    return Cell(plain(text).translate({ord("\n"): " ", ord("\t"): " "}), style)
