"""Datasets in files with JSON lines or one JSON array."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from doteval.core.strict_json import RepeatedNameError, unique_names
from doteval.core.wording import counted
from doteval.datasets.file_dataset import FileDataset
from doteval.errors import DatasetError

_ARRAY_REMEDY = "Name a file that is one JSON array .json. A .jsonl file has one JSON value a line, one for each row."


class _TooLargeError(ValueError):
    """A number is beyond the range of floats, and would become infinity in silence."""


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _TooLargeError
    return value


# The parser is the standard library's: orjson reads integers beyond 64 bits as floats and refuses NaN.
_DECODER = json.JSONDecoder(object_pairs_hook=unique_names, parse_float=_float)


class _NotJsonError(Exception):
    """`problem` says what is wrong, and never shows the text; `line` and `column` say where, if that is known."""

    def __init__(self, problem: str, line: int | None = None, column: int = 0, *, ended: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem if line is None else f"{problem} at column {column}"
        self.line = line
        self.ended = ended


def _parse(text: bytes) -> Any:
    """The JSON value. Raises _NotJsonError. The parser's own errors contain the text, so they are not chained."""
    try:
        return _DECODER.decode(text.decode())
    except json.JSONDecodeError as error:
        failed = _NotJsonError(f"not JSON: {error.msg}", error.lineno, error.colno, ended=error.msg == "Extra data")
    except UnicodeDecodeError as error:
        failed = _NotJsonError("the text is not UTF-8", text.count(b"\n", 0, error.start) + 1)
    except RecursionError:
        failed = _NotJsonError("nested too deeply")
    except RepeatedNameError as error:
        failed = _NotJsonError(str(error))
    except _TooLargeError:
        failed = _NotJsonError("a number is too large for a float")
    except ValueError:
        # Python refuses to convert so long a text (sys.set_int_max_str_digits).
        failed = _NotJsonError("an integer has too many digits")
    raise failed


class JsonLinesDataset(FileDataset):
    """The rows of a file with one JSON value a line. Empty lines are skipped."""

    def __iter__(self) -> Iterator[Any]:
        rows = self._rows()
        first = list(itertools.islice(rows, 1))
        if first and isinstance(first[0], list) and all(isinstance(each, dict | list) for each in first[0]):
            # It could be a row of its own, which another one follows.
            first += itertools.islice(rows, 1)
            if len(first) == 1:
                raise DatasetError(
                    f"{self.path.name} is one JSON array of {counted(len(first[0]), 'value')}, not JSON lines",
                    remedy=_ARRAY_REMEDY,
                )
        yield from first
        yield from rows

    def _rows(self) -> Iterator[Any]:
        begun = False
        with self._bytes() as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield self._parsed(text, number, first=not begun)
                    begun = True

    def _parsed(self, text: bytes, number: int, *, first: bool) -> Any:
        try:
            return _parse(text)
        except _NotJsonError as error:
            problem, remedy = error.problem, "Every line must be one JSON value."
        if first and text.lstrip().startswith(b"["):
            problem, remedy = f"{problem}; the file seems to be one JSON array", _ARRAY_REMEDY
        raise self._broken(number, problem, remedy)


class JsonDataset(FileDataset):
    """The rows of a file that is one JSON array. The whole file is read into memory."""

    @functools.cached_property
    def _array(self) -> list[Any]:
        with self._bytes() as file:
            text = file.read().removeprefix(b"\xef\xbb\xbf")
        try:
            value = _parse(text)
        except _NotJsonError as error:
            remedy = "A file with one JSON value a line is named .jsonl." if error.ended else None
            if error.line is None:
                raise DatasetError(f"{self.path.name}: {error.problem}", remedy=remedy) from None
            raise self._broken(error.line, error.problem, remedy) from None
        if not isinstance(value, list):
            kind = "an object" if isinstance(value, Mapping) else "one value"
            raise DatasetError(
                f"{self.path.name} holds {kind}, not an array of rows",
                remedy="Write an array of objects, or one object a line in a .jsonl file.",
            )
        return value

    @functools.cached_property
    def length(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._array)
