"""The scores of an evaluation as arrays: what a comparison needs of a million rows, in some 30 MB for each score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy
from numpy.typing import NDArray

from doteval.metrics.intervals import as_number

Numbers = NDArray[numpy.float64]
Places = NDArray[numpy.int64]
Digests = NDArray[numpy.uint64]
"""One 128-bit digest for each row, as two numbers."""

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class ScoreArray:
    """All values of one score in the rows that are done.

    rows: the place of each value's row among the rows of the evaluation.
    numbers: each value as a number, NaN where it is none.
    labels: all distinct values, if some are not numbers; `codes` then says which of them each value is.
    only_true_false: whether all values are true or false, or pairs (predicted, expected), which are right or wrong.
    """

    name: str
    metrics: tuple[str, ...]
    rows: Places
    numbers: Numbers
    only_true_false: bool
    labels: Sequence[Any] | None = field(default=None, repr=False)
    codes: Places | None = field(default=None, repr=False)

    def value(self, place: int) -> Any:
        """The value at a place, as the evaluator gave it up to the type of a number."""
        if self.labels is not None and self.codes is not None:
            return self.labels[int(self.codes[place])]
        number = float(self.numbers[place])
        return bool(number) if self.only_true_false else number

    def values(self, places: Places) -> list[Any]:
        """The values at places."""
        if self.labels is not None and self.codes is not None:
            labels = self.labels
            return [labels[code] for code in self.codes[places].tolist()]
        numbers = self.numbers[places]
        found: list[Any] = (numbers != 0).tolist() if self.only_true_false else numbers.tolist()
        return found


@dataclass(frozen=True, slots=True)
class EvaluationArrays:
    """The rows and scores of one evaluation.

    name: as it is shown, such as ``eval_x[a]``.
    indexes: the index of each row in its dataset, ascending.
    keys: the digest of each row's key.
    clusters: the digest of each row's cluster; None if rows are not clustered.
    samples: the number of samples of each row.
    reducer: the name of what reduces them to one score; None for their mean.
    failed, skipped: how many samples of each row failed and were skipped.
    unfinished: why not all rows have a result, None if they have.
    files: the files that the evaluation consists of, to tell metrics of one name apart.
    """

    experiment: str
    name: str
    indexes: Places
    keys: Digests
    clusters: Digests | None
    samples: int
    failed: Places
    skipped: Places
    scores: Mapping[str, ScoreArray]
    reducer: str | None = None
    unfinished: str | None = None
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indexes)


class ScoreArrayBuilder:
    """Collects the values of one score, page by page.

    >>> builder = ScoreArrayBuilder("right")
    >>> builder.add([True, False], [0, 1], ["accuracy"])
    >>> found = builder.build()
    >>> found.numbers.tolist(), found.value(0)
    ([1.0, 0.0], True)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._metrics: dict[str, None] = {}
        self._rows: list[Places] = []
        self._numbers: list[Numbers] = []
        self._true_false = True
        # Once a value is not a number, all values have codes.
        self._codes: list[Places] | None = None
        self._labels: list[Any] = []
        self._code_of: dict[Any, int] = {}

    def add(self, values: Sequence[Any], rows: Sequence[int] | Places, metrics: Iterable[str]) -> None:
        """Add values with the places of their rows, and the names of their metrics."""
        self._metrics.update(dict.fromkeys(metrics))
        self._rows.append(numpy.asarray(rows, dtype=numpy.int64))
        kinds = set(map(type, values))
        if kinds <= {bool, int, float}:
            numbers = numpy.fromiter(map(float, values), dtype=numpy.float64, count=len(values))
            self._true_false = self._true_false and kinds <= {bool}
            if self._codes is not None:
                self._codes.append(self._coded(values))
        else:
            values = list(map(_python, values))
            numbers = numpy.fromiter(map(_number, values), dtype=numpy.float64, count=len(values))
            self._true_false = self._true_false and all(map(_is_true_false, values))
            if self._codes is None:
                self._codes = [self._coded(part.tolist()) for part in self._numbers]
            self._codes.append(self._coded(values))
        self._numbers.append(numbers)

    def build(self) -> ScoreArray:
        """All values so far."""
        return ScoreArray(
            self._name,
            tuple(self._metrics),
            numpy.concatenate(self._rows),
            numpy.concatenate(self._numbers),
            self._true_false,
            None if self._codes is None else self._labels,
            None if self._codes is None else numpy.concatenate(self._codes),
        )

    def _coded(self, values: Sequence[Any]) -> Places:
        return numpy.fromiter(map(self._code, values), dtype=numpy.int64, count=len(values))

    def _code(self, value: Any) -> int:
        # Lists and mappings cannot be keys; their text can, and NaN equals nothing but its text does.
        try:
            key = value if value == value else repr(value)
            code = self._code_of.setdefault(key, len(self._labels))
        except (TypeError, ValueError):
            code = self._code_of.setdefault(repr(value), len(self._labels))
        if code == len(self._labels):
            self._labels.append(value)
        return code


def digests(texts: Iterable[str]) -> Digests:
    """The 128-bit digests of texts: two keys of a million rows are confused with a probability of 10^-26.

    >>> digests(["a", "b", "a"]).shape
    (3, 2)
    """
    found = b"".join(
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest() for text in texts
    )
    return numpy.frombuffer(found, dtype=numpy.uint64).reshape(-1, 2)


def group_numbers(rows: Digests) -> Places:
    """A number for each row, the same for rows with the same digest.

    >>> group_numbers(digests(["a", "b", "a"])).tolist()[::2]
    [0, 0]
    """
    numbers = numpy.empty(len(rows), dtype=numpy.int64)
    order = numpy.lexsort((rows[:, 1], rows[:, 0]))
    ordered = rows[order]
    begins = numpy.ones(len(rows), dtype=bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers[order] = numpy.cumsum(begins) - 1
    return numbers


@dataclass(frozen=True, slots=True)
class RowPairs:
    """The places of rows on two sides; -1 where a side does not have the row. The rows that both have come first.

    both: how many they are.
    """

    left: Places
    right: Places
    both: int


def pair_rows(left: Digests, right: Digests) -> RowPairs:
    """Pair rows by their keys; equal rows of a dataset are paired in their order.

    >>> pairs = pair_rows(digests("abb"), digests("bc"))
    >>> pairs.left.tolist(), pairs.right.tolist(), pairs.both
    ([1, 0, 2, -1], [0, -1, -1, 1], 1)
    """
    if left.shape == right.shape and (left == right).all():
        same = numpy.arange(len(left))
        return RowPairs(same, same, len(left))
    groups = group_numbers(numpy.concatenate((left, right)))
    of_left, of_right = _numbered(groups[: len(left)]), _numbered(groups[len(left) :])
    most = int(max(part[:, 1].max(initial=0) for part in (of_left, of_right))) + 1
    name_left, name_right = (part[:, 0] * most + part[:, 1] for part in (of_left, of_right))
    _, at_left, at_right = numpy.intersect1d(name_left, name_right, assume_unique=True, return_indices=True)
    order = numpy.argsort(at_left)
    at_left, at_right = at_left[order], at_right[order]
    only_left = numpy.setdiff1d(numpy.arange(len(left)), at_left)
    only_right = numpy.setdiff1d(numpy.arange(len(right)), at_right)
    return RowPairs(
        numpy.concatenate((at_left, only_left, numpy.full(len(only_right), -1))),
        numpy.concatenate((at_right, numpy.full(len(only_left), -1), only_right)),
        len(at_left),
    )


def _numbered(groups: Places) -> Places:
    """The group of each row, and the row's number among the rows of its group."""
    order = numpy.argsort(groups, kind="stable")
    ordered = groups[order]
    first = numpy.searchsorted(ordered, ordered)
    numbers = numpy.empty_like(groups)
    numbers[order] = numpy.arange(len(groups)) - first
    return numpy.stack((groups, numbers), axis=1)


def _number(value: Any) -> float:
    try:
        return as_number(value)
    except TypeError:
        return numpy.nan


def _python(value: Any) -> Any:
    return value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value


def _is_true_false(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, (tuple, list)) and len(value) == 2)
