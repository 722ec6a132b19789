"""Reducers turn the scores of a row's samples (``--epochs N``) into one value, before a metric sees them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from doteval.core.reducer_names import ReducerName
from doteval.core.wording import counted
from doteval.metrics.intervals import as_number

__all__ = ["Reducer", "pass_at_k", "pass_hat_k", "reducer"]

Reducer = Callable[[Sequence[Any]], Any]
"""Gets the scores of the samples of one row, at least one; returns the score of the row."""


def reducer(name: str) -> Reducer:
    """Return the reducer with a name.

    ``mean``, ``median``, ``max``: of the scores as numbers, where True is 1.
    ``mode``: the most frequent score, the first of several; the scores may be labels.
    ``at_least_K``: whether at least K samples are right, that is have the score 1.
    ``pass_at_K``: the chance that at least one of K samples is right: `pass_at_k`.
    ``pass_hat_K``: the chance that all of K samples are right: `pass_hat_k`.

    >>> reducer("mode")(["a", "b", "b"])
    'b'
    >>> reducer("at_least_2")([True, False, True])
    True

    Raises UsageError: there is no such reducer.
    """
    parsed = ReducerName.parse(name)
    k = parsed.k
    reducers: dict[str, Reducer] = {
        "mean": lambda scores: math.fsum(map(as_number, scores)) / len(scores),
        "median": lambda scores: statistics.median(map(as_number, scores)),
        "mode": statistics.mode,
        "max": lambda scores: max(map(as_number, scores)),
        "at_least": lambda scores: _right(scores) >= _enough(scores, k, name),
        "pass_at": lambda scores: pass_at_k(len(scores), _right(scores), _enough(scores, k, name)),
        "pass_hat": lambda scores: pass_hat_k(len(scores), _right(scores), _enough(scores, k, name)),
    }
    return reducers[parsed.kind]


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that at least one of `k` samples is right, estimated from `n` samples of which `right` are right.

    This is the unbiased estimator of Chen et al., Evaluating Large Language Models Trained on Code, 2021
    (arXiv:2107.03374), section 2.1: with c right ones 1 - C(n-c, k) / C(n, k), computed as the product of 1 - k / i
    for i from n-c+1 to n.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if n - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - right + 1, n + 1))


def pass_hat_k(n: int, right: int, k: int) -> float:
    """The chance that all of `k` samples are right, estimated from `n` samples of which `right` are right.

    This is the unbiased estimator pass^k of Yao et al., τ-bench, 2024 (arXiv:2406.12045), section 4: C(c, k) / C(n, k).

    >>> pass_hat_k(4, 3, 2)
    0.5
    """
    return math.comb(right, k) / math.comb(n, k)


def _right(scores: Sequence[Any]) -> int:
    return sum(as_number(score) == 1.0 for score in scores)


def _enough(scores: Sequence[Any], k: int, name: str) -> int:
    """`k`, if there are so many samples. Raises ValueError otherwise."""
    if len(scores) < k:
        raise ValueError(
            f"{name} needs {counted(k, 'sample')} of each row, but a row has {len(scores)}: use --epochs {k} or more"
        )
    return k
