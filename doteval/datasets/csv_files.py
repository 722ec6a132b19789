"""Datasets in CSV and TSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from doteval.core.wording import counted
from doteval.datasets.file_dataset import FileDataset, format_suffix
from doteval.errors import DatasetError

# By default the csv module refuses cells of more than 128 KiB, and responses of models are often longer.
_LONGEST_CELL_BYTES = 2**31 - 1

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_UNREADABLE_BYTES = range(0xDC80, 0xDD00)


class CsvDataset(FileDataset):
    """The rows of a CSV or TSV file as dicts by column. Values stay text, and empty lines are skipped.

    The first line names the columns. If it has a semicolon and no comma, semicolons separate the cells, as spreadsheets
    write them where the comma is the decimal sign. A line that has more or fewer cells is an error, since nothing says
    which value belongs to which column.
    """

    def __init__(self, path: Path, wanted: Sequence[str] | None = None) -> None:
        super().__init__(path, wanted)
        self._delimiter = "\t" if format_suffix(path) == ".tsv" else ","
        self.columns: tuple[str, ...] = self._header()
        if self._delimiter == "," and len(self.columns) == 1 and ";" in self.columns[0]:
            self._delimiter = ";"
            self.columns = self._header()  # One, if the name is in quotes.

    def _header(self) -> tuple[str, ...]:
        for _, cells in self._records():
            return tuple(cell.strip() for cell in cells)
        raise DatasetError(f"{self.path.name} is empty", remedy="Its first line must name the columns.")

    def __iter__(self) -> Iterator[dict[str, str]]:
        wanted = self.columns if self.wanted is None else self.wanted
        places = [(column, self.columns.index(column)) for column in wanted]
        width = len(self.columns)
        records = self._records()
        next(records, None)
        for line, cells in records:
            if len(cells) != width:
                raise self._ragged(line, cells)
            yield {column: cells[place] for column, place in places}

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The cells of each record, with the line on which it begins."""
        csv.field_size_limit(_LONGEST_CELL_BYTES)
        line = 1
        with self._text() as file:
            # Strict: a quote that is never closed, or is closed within a cell, would join cells and lines in silence.
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            try:
                for cells in reader:
                    if cells:
                        yield line, cells
                    line = reader.line_num + 1
            except csv.Error as error:
                raise self._malformed(line, reader.line_num, error) from None
            except UnicodeDecodeError:
                raise self._broken(
                    self._first_unreadable_line(), "the text is not UTF-8", "Save the file with the encoding UTF-8."
                ) from None

    def _malformed(self, line: int, seen: int, error: csv.Error) -> DatasetError:
        if "unexpected end of data" in str(error):
            return self._broken(
                line,
                f"a quote that opens in this record is never closed; the file ends at line {seen}",
                'Close the quote. A quote within a cell is written twice, and the cell in quotes: "6"" pipe".',
            )
        where = "" if seen <= line else f" (at line {seen}, in the record that begins here)"
        return self._broken(
            line,
            f"not CSV: {error}{where}",
            'A quote within a cell is written twice, and the cell in quotes: "6"" pipe".',
        )

    def _ragged(self, line: int, cells: list[str]) -> DatasetError:
        found, width = len(cells), len(self.columns)
        if found == 1 and not cells[0].strip():
            return self._broken(line, "the line has only blanks", "Delete the line.")
        separator = _SEPARATORS[self._delimiter]
        return self._broken(
            line,
            f"{counted(found, 'cell')}, but the header names {counted(width, 'column')}",
            f"Put a cell that has a {separator} in quotes." if found > width else "Add the missing cells.",
        )

    def _first_unreadable_line(self) -> int:
        # The decoder reads ahead of the lines, so its error does not tell the line.
        with self._text(errors="surrogateescape") as file:
            for number, line in enumerate(file, start=1):
                if not line.isascii() and any(ord(character) in _UNREADABLE_BYTES for character in line):
                    return number
        raise AssertionError("the file has changed while it was read")
