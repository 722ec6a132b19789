"""Precision, recall and F1 of scores that are pairs (predicted, expected)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from doteval.metrics.base import Calculation
from doteval.metrics.intervals import LEVEL, SEED, Interval, wilson
from doteval.metrics.registry import metric

RESAMPLES = 2_000

# A function of the counts of one class (true positives, false positives, false negatives): the number of rows of which
# the true positives are a share. It works on numbers and on numpy arrays with one entry for each resample.
Whole = Callable[[Any, Any, Any], Any]
# The figure for this share.
OfShare = Callable[[Any], Any]

Pair = tuple[Hashable, Hashable]


@metric
def precision(positive: Hashable | None = None) -> Calculation:
    """TP / (TP + FP): the share of the predictions of a class that are right.

    The class is `positive`. Without it, the class is True (or 1) if all classes are true or false, and otherwise the
    result is the mean over all classes (macro average). A class that is never predicted counts as 0. Scores are pairs
    (predicted, expected). Failed rows are left out, since they have no pair. See Manning, Raghavan and Schütze,
    Introduction to Information Retrieval, 2008, sections 8.3 and 13.6.

    Raises TypeError for scores that are no pairs, ValueError if there are none or a class is NaN.

    >>> precision("cat")([("cat", "cat"), ("cat", "dog"), ("dog", "dog")])
    0.5
    """
    return _of_classes(lambda tp, fp, _fn: tp + fp, _same, positive)


@metric
def recall(positive: Hashable | None = None) -> Calculation:
    """TP / (TP + FN): the share of the rows of a class that are found. The class is chosen as in `precision`.

    >>> recall("dog")([("cat", "cat"), ("cat", "dog"), ("dog", "dog")])
    0.5
    """
    return _of_classes(lambda tp, _fp, fn: tp + fn, _same, positive)


@metric
def f1(positive: Hashable | None = None) -> Calculation:
    """2 TP / (2 TP + FP + FN): the harmonic mean of precision and recall.

    The class is chosen as in `precision`; the macro average is the mean of the F1 of all classes. See C. J. van
    Rijsbergen, Information Retrieval, 1979, chapter 7, with α = 1/2.

    >>> f1("cat")([("cat", "cat"), ("cat", "cat"), ("cat", "dog"), ("dog", "cat")])  # doctest: +ELLIPSIS
    0.666...
    """
    return _of_classes(lambda tp, fp, fn: tp + fp + fn, _f1_of_jaccard, positive)


def _same(share: Any) -> Any:
    return share


def _f1_of_jaccard(share: Any) -> Any:
    """F1 = 2 TP / (2 TP + FP + FN) by TP / (TP + FP + FN), with which it grows."""
    return 2 * share / (1 + share)


def _of_classes(whole: Whole, of_share: OfShare, positive: Hashable | None) -> Calculation:
    def value(scores: Sequence[Any]) -> float:
        cells = _cells(scores)
        return float(_figure(whole, of_share, list(cells), list(cells.values()), positive))

    def interval(scores: Sequence[Any]) -> Interval | None:
        cells = _cells(scores)
        n = sum(cells.values())
        if n < 2:
            return None
        chosen = _chosen(list(cells), positive)
        if len(chosen) == 1:
            # Given how many rows the true positives are a share of, their number is binomial.
            tp, *others = _counts(list(cells), list(cells.values()), *chosen)
            found = wilson(tp, whole(tp, *others))
            return found and Interval(of_share(found.low), of_share(found.high), found.method)
        import numpy

        # Percentile bootstrap (Efron 1979). Drawing n pairs with replacement is the same as drawing how often each
        # distinct pair occurs, which costs the same for any n.
        counts = numpy.array(list(cells.values()))
        drawn = numpy.random.default_rng(SEED).multinomial(n, counts / n, size=RESAMPLES)
        figures = _figure(whole, of_share, list(cells), list(drawn.T), positive)
        low, high = numpy.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(low), float(high), "bootstrap")

    return Calculation(value, interval=interval, failed_as_false=False)


def _cells(scores: Sequence[Any]) -> Counter[Pair]:
    cells: Counter[Pair] = Counter()
    for score in scores:
        if not isinstance(score, (tuple, list)) or len(score) != 2:
            raise TypeError(f"needs pairs (predicted, expected), not {type(score).__name__}")
        # NaN equals nothing: each would be a class of its own, and lower the mean over the classes.
        if any(isinstance(label, float) and math.isnan(label) for label in score):
            raise ValueError("needs classes that are not NaN")
        cells[score[0], score[1]] += 1
    if not cells:
        raise ValueError("needs at least one pair (predicted, expected)")
    return cells


def _chosen(pairs: list[Pair], positive: Hashable | None) -> set[Hashable]:
    """The classes over which a figure is averaged: the one that is asked for, True, or all of them."""
    classes = {label for pair in pairs for label in pair}
    if positive is None and classes <= {True, False}:
        positive = True
    return classes if positive is None else {positive}


def _counts(pairs: list[Pair], counts: list[Any], label: Hashable) -> tuple[Any, Any, Any]:
    """The true positives, false positives and false negatives of a class."""
    tp: Any = 0
    fp: Any = 0
    fn: Any = 0
    for (predicted, expected), count in zip(pairs, counts, strict=True):
        if predicted == label and expected == label:
            tp = tp + count
        elif predicted == label:
            fp = fp + count
        elif expected == label:
            fn = fn + count
    return tp, fp, fn


def _figure(whole: Whole, of_share: OfShare, pairs: list[Pair], counts: list[Any], positive: Hashable | None) -> Any:
    chosen = _chosen(pairs, positive)
    total: Any = 0.0
    for label in chosen:
        tp, fp, fn = _counts(pairs, counts, label)
        total = total + of_share(_ratio(tp, whole(tp, fp, fn)))
    return total / len(chosen)


def _ratio(part: Any, whole: Any) -> Any:
    import numpy

    return numpy.where(whole > 0, part / numpy.maximum(whole, 1), 0.0)
